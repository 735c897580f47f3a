"""The management port: nothing that is asked of it is quoted, and nobody can fill the process."""

import http.client
import json
import math
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry

from jangada_worker.management import MAX_CONNECTIONS, STUCK, Health, management

type Address = tuple[str, int]

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def address() -> Iterator[Address]:
    with management("127.0.0.1", 0, Health(faults=dict), CollectorRegistry()) as url:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        yield parts.hostname, parts.port


def ask(address: Address, method: str, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]
    finally:
        connection.close()
    return answer


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/health/live", 200, "application/json"),
        ("GET", "/metrics", 200, "text/plain"),
        ("GET", "/canary", 404, "application/problem+json"),
        ("CANARY", "/health/live", 405, "application/problem+json"),
        ("GET", "/" + "canary" * 20_000, 414, "application/problem+json"),
    ],
)
def test_every_answer_is_guarded_and_quotes_nothing(  # noqa: PLR0917 - the table's columns
    address: Address, method: str, path: str, status: int, kind: str
) -> None:
    answer = ask(address, method, path)
    assert answer.status == status
    assert answer.headers.get_content_type() == kind
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert b"canary" not in answer.body.lower()  # type: ignore[attr-defined]


def test_a_process_that_is_not_ready_any_more_has_started_all_the_same() -> None:
    """Else a drain would look like a start that takes too long, and be ended."""
    health = Health(lambda: {"process": "it is draining"})
    with management("127.0.0.1", 0, health, CollectorRegistry()) as url:
        parts = urlsplit(url)
        address = (parts.hostname or "", parts.port or 0)
        assert ask(address, "GET", "/health/ready").status == 503
        assert ask(address, "GET", "/health/startup").status == 200


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nowhere", "route.not_found"),
        ("POST", "/health/live", "route.method_not_allowed"),
        ("GET", "/" + "x" * 70_000, "request.malformed"),
    ],
)
def test_what_is_refused_is_a_problem_as_the_api_has_it(
    address: Address, method: str, path: str, code: str
) -> None:
    answer = ask(address, method, path)
    problem = json.loads(answer.body)  # type: ignore[attr-defined]
    assert problem == {
        "type": f"urn:jangada:problem:{code}",
        "title": HTTPStatus(answer.status).phrase,
        "status": answer.status,
        "detail": problem["detail"],
        "code": code,
        "request_id": answer.headers["X-Request-ID"],
        "errors": [],
    }
    assert problem["detail"]


def healths() -> Iterator[tuple[Health, str, int, dict[str, object]]]:
    """What a process knows of itself, and what a probe is told then."""
    turning = partial(Health, last_turn=math.inf)  # tests are made long before they run
    absent = {"valkey": "it does not answer"}
    draining = turning(lambda: {"process": "it is draining"}, lambda: absent)
    starting = turning(dict, has_started=lambda: False)
    stuck = Health(dict, last_turn=time.monotonic() - 2 * STUCK.total_seconds())
    yield turning(dict), "live", 200, {"status": "alive"}
    yield turning(dict), "startup", 200, {"status": "started"}
    yield turning(dict), "ready", 200, {"status": "ready", "degraded": [], "reasons": {}}
    yield turning(dict, lambda: absent), "ready", 200, {"degraded": ["valkey"], "reasons": absent}
    yield draining, "live", 200, {"status": "alive"}
    yield draining, "startup", 200, {"status": "started"}
    told = {"failed": ["process"], "degraded": ["valkey"], "detail": "process: it is draining"}
    yield draining, "ready", 503, {"code": "health.not_ready", **told}
    yield starting, "ready", 503, {"code": "health.starting"}
    yield starting, "startup", 503, {"code": "health.starting"}
    yield stuck, "live", 503, {"code": "service.unavailable"}


@pytest.mark.parametrize(("health", "probe", "status", "said"), list(healths()))
def test_each_probe_is_answered_from_what_the_process_knows(
    health: Health, probe: str, status: int, said: dict[str, object]
) -> None:
    with management("127.0.0.1", 0, health, CollectorRegistry()) as url:
        parts = urlsplit(url)
        answer = ask((parts.hostname or "", parts.port or 0), "GET", f"/health/{probe}")
    assert answer.status == status
    assert json.loads(answer.body).items() >= said.items()  # type: ignore[attr-defined]


def test_connections_beyond_the_limit_are_hung_up_on(address: Address) -> None:
    """Each has a thread; an answer shows that it has begun."""
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            held = stack.enter_context(socket.create_connection(address, timeout=30))
            held.sendall(LIVE)
            assert held.recv(65_536).startswith(b"HTTP/1.1 200")
        more = stack.enter_context(socket.create_connection(address, timeout=30))
        assert more.recv(1) == b""
    while True:
        with socket.create_connection(address, timeout=30) as again:
            try:
                again.sendall(LIVE)
                if again.recv(1):
                    return
            except ConnectionError:
                continue
