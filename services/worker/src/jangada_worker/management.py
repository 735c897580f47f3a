"""Health and metrics of a worker or dispatcher, answered from threads of their own.

So they answer whatever the event loop is doing; live says 503 when the loop has not turned for a
minute. The port is for probes and scrapers and is never routed to the public.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, override

from prometheus_client import CollectorRegistry

from jangada.errors import Conflict
from jangada.telemetry import exposition

STUCK: Final = timedelta(minutes=1)
REQUEST_TIMEOUT: Final = 10.0
MAX_CONNECTIONS: Final = 32
"""At once, each with a thread; more are hung up on."""

HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(slots=True)
class Health:
    """What the process knows of itself.

    `problems` names what keeps it from being ready, `degraded` what is absent and can be borne,
    `starting` what it has still to do before it was ready for the first time.
    """

    problems: Callable[[], Sequence[str]]
    degraded: Callable[[], Sequence[str]] = tuple
    starting: Callable[[], Sequence[str]] = tuple
    last_turn: float = field(default_factory=time.monotonic)

    def turn(self) -> None:
        """The event loop turned; called several times a second."""
        self.last_turn = time.monotonic()

    def is_live(self) -> bool:
        return time.monotonic() - self.last_turn < STUCK.total_seconds()


type Request = socket.socket | tuple[bytes, socket.socket]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], health: Health, registry: CollectorRegistry
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.health = health
        self.registry = registry
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    @override
    def process_request(self, request: Request, client_address: object) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    @override
    def process_request_thread(self, request: Request, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """A prober that hangs up is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIMEOUT
    protocol_version = "HTTP/1.1"
    server_version = "jangada"
    sys_version = ""

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/health/live":
                self._answer_health([] if self.server.health.is_live() else ["event loop"])
            case "/health/ready":
                health = self.server.health
                self._answer_health(health.problems(), health.degraded())
            case "/health/startup":
                self._answer_health(self.server.health.starting())
            case "/metrics":
                body, content_type = exposition(self.server.registry)
                self._answer(HTTPStatus.OK, content_type, body)
            case _:
                self._answer_problem(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815 - http.server names it

    @override
    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What `http.server` refuses by itself, by a page that quotes the request."""
        self.close_connection = True
        self._answer_problem(HTTPStatus(code))

    def _answer_problem(self, status: HTTPStatus) -> None:
        body = {"type": "about:blank", "title": status.phrase, "status": int(status)}
        self._answer(status, "application/problem+json", json.dumps(body).encode())

    def _answer_health(self, problems: Sequence[str], degraded: Sequence[str] = ()) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        body = {
            "status": "unavailable" if problems else "ok",
            "problems": list(problems),
            "degraded": list(degraded),
        }
        self._answer(status, "application/json", json.dumps(body).encode())

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds: they are not logged."""


@contextmanager
def management(host: str, port: int, health: Health, registry: CollectorRegistry) -> Iterator[str]:
    """Serve inside the block; yields the URL, whose port was chosen where `port` is 0.

    Raises `Conflict` for a port that is in use or not ours to use.
    """
    try:
        server = _Server((host, port), health, registry)
    except OSError as error:
        raise Conflict(
            f"The management port {host}:{port} cannot be used: {error.strerror}."
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="management", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
