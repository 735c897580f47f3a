"""Traces: OpenTelemetry spans, sent by OTLP over HTTP when an endpoint is set.

Without one nothing of the SDK is imported and nothing runs. Spans obey the same redaction as log
lines: they say the route and the type of an exception, never a path, a query, a message or a
statement's values.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jangada.config import TelemetrySettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

EXPORT_TIMEOUT_SECONDS = 5.0
FLUSH_TIMEOUT_MILLIS = 3_000


@contextmanager
def tracing(
    settings: TelemetrySettings, service: str = "jangada"
) -> Iterator["TracerProvider | None"]:
    """Trace inside the block if an endpoint is set.

    What is still unsent at its end gets 3 s, then is dropped.
    """
    if settings.otlp_endpoint is None:
        yield None
        return
    provider = _provider(settings.otlp_endpoint, settings.service_name or service)
    try:
        yield provider
    finally:
        provider.force_flush(FLUSH_TIMEOUT_MILLIS)
        provider.shutdown()


def _provider(endpoint: str, service: str) -> "TracerProvider":
    from opentelemetry import trace  # noqa: PLC0415 - at no cost when off
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    from jangada.telemetry.spans import RedactingExporter  # noqa: PLC0415

    url = f"{endpoint.rstrip('/').removesuffix('/v1/traces')}/v1/traces"
    exporter = RedactingExporter(OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_SECONDS))
    resource = Resource.create({"service.name": service})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider
