"""The management port: nothing that is asked of it is quoted, and nobody can fill the process."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry

from jangada_worker.management import MAX_CONNECTIONS, Health, management

type Address = tuple[str, int]

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def address() -> Iterator[Address]:
    with management("127.0.0.1", 0, Health(problems=tuple), CollectorRegistry()) as url:
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
        ("CANARY", "/health/live", 501, "application/problem+json"),
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
    health = Health(problems=lambda: ["draining"])
    with management("127.0.0.1", 0, health, CollectorRegistry()) as url:
        parts = urlsplit(url)
        address = (parts.hostname or "", parts.port or 0)
        assert ask(address, "GET", "/health/ready").status == 503
        assert ask(address, "GET", "/health/startup").status == 200


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
