"""Traces leave only where an endpoint is set, and redacted."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import cast

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Status, StatusCode

from jangada.config import TelemetrySettings
from jangada.telemetry import tracing
from jangada.telemetry.spans import redacted


class Collector(HTTPServer):
    """An OTLP/HTTP receiver."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receive)
        self.received: list[tuple[str, bytes]] = []


class Receive(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        cast(Collector, self.server).received.append((self.path, body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_without_an_endpoint_no_tracing_code_is_loaded() -> None:
    program = (
        "import sys, jangada.telemetry as t, jangada.config as c\n"
        "s = c.TelemetrySettings(log_format='json')\n"
        "t.configure_logging(s)\n"
        "with t.tracing(s) as provider: assert provider is None\n"
        "t.get_logger().info('x')\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]\n"
    )
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], check=True, capture_output=True
    )


SENDER = """
import sys, jangada.telemetry as t, jangada.config as c
settings = c.TelemetrySettings(log_format="json", otlp_endpoint=sys.argv[1])
t.configure_logging(settings, "jangada-api")
with t.tracing(settings, "jangada-api") as provider:
    tracer = provider.get_tracer("test")
    try:
        with tracer.start_as_current_span("GET /v1/x", attributes={"url.query": "q=canary"}):
            t.get_logger().info("inside")
            raise ValueError("canary")
    except ValueError:
        pass
"""


def test_spans_reach_the_collector_redacted_and_lines_carry_their_ids(collector: Collector) -> None:
    url = f"http://127.0.0.1:{collector.server_port}"
    ran = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", SENDER, url], check=True, capture_output=True, text=True
    )
    ((path, body),) = collector.received
    request = ExportTraceServiceRequest.FromString(body)
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert path == "/v1/traces"
    assert span.name == "GET /v1/x"
    assert span.events[0].attributes[0].value.string_value == "ValueError"
    assert b"canary" not in body
    assert f'"trace_id":"{span.trace_id.hex()}"' in ran.stderr
    assert f'"span_id":"{span.span_id.hex()}"' in ran.stderr


def test_a_collector_that_is_absent_delays_the_end_only_briefly() -> None:
    settings = TelemetrySettings(otlp_endpoint="http://127.0.0.1:9")
    with tracing(settings) as provider:
        assert provider is not None


def test_a_span_keeps_its_route_and_loses_its_data() -> None:
    span = ReadableSpan(
        name="GET /v1/contacts/{id}",
        attributes={
            "http.route": "/v1/contacts/{id}",
            "http.response.status_code": 500,
            "url.path": "/v1/contacts/canary",
            "url.query": "canary",
            "user_agent.original": "curl canary@example.org",
        },
        status=Status(StatusCode.ERROR, "ValueError: canary"),
    )
    copy = redacted(span)
    assert "canary" not in copy.to_json()
    assert copy.attributes is not None
    assert copy.attributes["http.route"] == "/v1/contacts/{id}"
    assert copy.attributes["http.response.status_code"] == 500
    assert copy.status.status_code is StatusCode.ERROR
