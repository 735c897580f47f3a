"""Health and metrics of a worker or dispatcher, answered from threads of their own.

So they answer whatever the event loop is doing. The answers have the shapes of the API's management
port, problem documents included. The port is for probes and scrapers, never routed to the public.

- live: the event loop has turned within the last minute.
- startup: the process has begun its work, once and for all.
- ready: it can work now; else 503, and `reasons` says what is in the way. What is absent and can be
  borne is `degraded`.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, override

from prometheus_client import CollectorRegistry

from jangada.db import new_id
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


@dataclass(frozen=True, slots=True)
class Reply:
    """What a problem document says; the codes mean what they mean in the API."""

    code: str
    detail: str


STARTING: Final = Reply("health.starting", "The process is still starting.")
MALFORMED: Final = Reply("request.malformed", "The request cannot be understood.")
REPLIES: Final[Mapping[HTTPStatus, Reply]] = {
    HTTPStatus.NOT_FOUND: Reply("route.not_found", "There is nothing at this address."),
    HTTPStatus.METHOD_NOT_ALLOWED: Reply(
        "route.method_not_allowed", "This address does not know this method."
    ),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: Reply(
        "request.headers_too_large", "The request's headers are too large."
    ),
}


@dataclass(slots=True)
class Health:
    """What the process knows of itself.

    `faults` names what keeps it from being ready, `degraded` what is absent and can be borne, each
    with the reason.
    """

    faults: Callable[[], Mapping[str, str]]
    degraded: Callable[[], Mapping[str, str]] = dict
    has_started: Callable[[], bool] = lambda: True
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
                self._answer_live(self.server.health)
            case "/health/startup":
                self._answer_startup(self.server.health)
            case "/health/ready":
                self._answer_ready(self.server.health)
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
        is_method = code == HTTPStatus.NOT_IMPLEMENTED
        status = HTTPStatus.METHOD_NOT_ALLOWED if is_method else HTTPStatus(code)
        self._answer_problem(status, headers={"Allow": "GET, HEAD"} if is_method else {})

    def _answer_live(self, health: Health) -> None:
        if health.is_live():
            self._answer_json({"status": "alive"})
        else:
            stuck = Reply("service.unavailable", "The event loop has not turned for a minute.")
            self._answer_problem(HTTPStatus.SERVICE_UNAVAILABLE, stuck)

    def _answer_startup(self, health: Health) -> None:
        if health.has_started():
            self._answer_json({"status": "started"})
        else:
            self._answer_problem(HTTPStatus.SERVICE_UNAVAILABLE, STARTING)

    def _answer_ready(self, health: Health) -> None:
        if not health.has_started():
            self._answer_problem(HTTPStatus.SERVICE_UNAVAILABLE, STARTING)
            return
        faults, degraded = health.faults(), health.degraded()
        known = {"degraded": list(degraded), "reasons": {**faults, **degraded}}
        if not faults:
            self._answer_json({"status": "ready", **known})
            return
        detail = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        self._answer_problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            Reply("health.not_ready", detail),
            more={"failed": list(faults), **known},
            headers={"Retry-After": "1"},
        )

    def _answer_problem(
        self,
        status: HTTPStatus,
        reply: Reply | None = None,
        *,
        more: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        reply = reply or REPLIES.get(status, MALFORMED)
        request_id = str(new_id())
        document = {
            "type": f"urn:jangada:problem:{reply.code}",
            "title": status.phrase,
            "status": int(status),
            "detail": reply.detail,
            "code": reply.code,
            "request_id": request_id,
            "errors": [],
            **(more or {}),
        }
        headers = {"X-Request-ID": request_id, **(headers or {})}
        body = json.dumps(document).encode()
        self._answer(status, "application/problem+json", body, headers)

    def _answer_json(self, document: Mapping[str, object]) -> None:
        self._answer(HTTPStatus.OK, "application/json", json.dumps(document).encode())

    def _answer(
        self,
        status: HTTPStatus,
        content_type: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in {**HEADERS, **(headers or {})}.items():
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
