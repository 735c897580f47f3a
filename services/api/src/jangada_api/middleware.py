"""What every request passes through, as pure ASGI middleware in one fixed order (`ORDER`).

No BaseHTTPMiddleware: it halves throughput. The order matters: the request id is bound before
anything logs; metrics and access log see what was really sent, answers of the inner ones included;
the security headers are on every answer, errors included; failures become problem documents inside
all of them.
"""

import asyncio
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from time import perf_counter
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jangada.db import new_id
from jangada.telemetry import DURATION_BUCKETS, bind, get_logger, unbind_all
from jangada_api.forwarded import Networks, client_address
from jangada_api.problems import CODE_IN_SCOPE, Problem, RequestRefused, response_to, too_large

log = get_logger("jangada_api.access")

SAFE_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BODY_TIMEOUT: Final = timedelta(seconds=30)
MIN_BODY_RATE: Final = 8 * 1024
"""Bytes a second that a body must come with in the end: what comes in drops holds a place."""
SERVER_ERROR: Final = 500
CLIENT_LEFT: Final = 499
"""What metrics say of a request whose client left before the answer (nginx's convention)."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that name (lower case)."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return next((value for key, value in headers if key == name), None)


def route_of(scope: Scope) -> str:
    """The template of the route that served the request, known after the call; never a path."""
    route = scope.get("route")
    if route is not None:
        return str(route.path_format)
    return "(static)" if "endpoint" in scope else "(none)"


class RequestId:
    """Gives every request an id: the caller's if it is safe to log, else a new one.

    It is bound to all log lines, sent back as `X-Request-ID`, and inherited by jobs that the
    request causes. Without tracing a trace id is bound too: the caller's, or a new one.
    """

    def __init__(self, app: ASGIApp, *, is_traced: bool = False) -> None:
        self.app = app
        self.is_traced = is_traced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = self._bind(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            unbind_all()

    def _bind(self, scope: Scope) -> bytes:
        sent = header(scope, b"x-request-id")
        is_safe = sent is not None and SAFE_REQUEST_ID.fullmatch(sent)
        request_id = sent if sent is not None and is_safe else str(new_id()).encode()
        unbind_all()
        bind(request_id=request_id.decode())
        if not self.is_traced:
            parent = TRACEPARENT.fullmatch(header(scope, b"traceparent") or b"")
            bind(trace_id=parent[1].decode() if parent else secrets.token_hex(16))
        return request_id


class HttpMetrics:
    """`http_server_request_duration_seconds` and `http_server_active_requests`.

    The labels are bounded: known methods, route templates and status codes. A stream of events
    counts until its first byte, or one that stays open for an hour would drown all else.
    """

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry) -> None:
        self.app = app
        self.duration = Histogram(
            "http_server_request_duration_seconds",
            "Time from the request to the end of its answer.",
            ("http_request_method", "http_route", "http_response_status_code"),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.active = Gauge(
            "http_server_active_requests",
            "Requests under way.",
            ("http_request_method",),
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        answer = _Answer()
        with self.active.labels(method).track_inprogress():
            try:
                await self.app(scope, receive, answer.watching(send))
            finally:
                labels = (method, route_of(scope), str(answer.status or CLIENT_LEFT))
                self.duration.labels(*labels).observe(answer.duration())


class AccessLog:
    """One line per request, after it: route, status, duration; no path, query or header."""

    def __init__(self, app: ASGIApp, *, trusted_proxies: Networks) -> None:
        self.app = app
        self.trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer()
        try:
            await self.app(scope, receive, answer.watching(send))
        finally:
            write = log.warning if (answer.status or CLIENT_LEFT) >= SERVER_ERROR else log.info
            client = client_address(scope, self.trusted_proxies)
            write("request", **_line(scope, answer), client=client)


def _line(scope: Scope, answer: "_Answer") -> dict[str, Any]:
    line = {
        "method": scope["method"] if scope["method"] in METHODS else "_OTHER",
        "route": route_of(scope),
        "status": answer.status,
        "duration_seconds": round(answer.elapsed(), 6),
        "bytes_sent": answer.bytes_sent,
    }
    if CODE_IN_SCOPE in scope:
        line["code"] = scope[CODE_IN_SCOPE]
    if answer.status is None:
        line["outcome"] = "the client left"
    return line


class _Answer:
    """Watches what is sent."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.bytes_sent = 0
        self._began = perf_counter()
        self._first_byte: float | None = None

    def elapsed(self) -> float:
        return perf_counter() - self._began

    def duration(self) -> float:
        """Until now, or until the first byte of a stream of events."""
        return self.elapsed() if self._first_byte is None else self._first_byte

    def watching(self, send: Send) -> Send:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                if _is_event_stream(message):
                    self._first_byte = self.elapsed()
            else:
                self.bytes_sent += len(message.get("body", b""))
            await send(message)

        return watched


def _is_event_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start.get("headers", ())
    )


SECURITY_HEADERS: Final[Mapping[bytes, bytes]] = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    b"referrer-policy": b"no-referrer",
    b"strict-transport-security": b"max-age=63072000; includeSubDomains",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
"""On every answer, unless the route set the header itself (the documentation pages' own policy)."""


class SecurityHeaders:
    """Puts the security headers on every answer that does not bring its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                names = {name.lower() for name, _ in own}
                missing = [item for item in SECURITY_HEADERS.items() if item[0] not in names]
                message["headers"] = [*own, *missing]
            await send(message)

        await self.app(scope, receive, send_secured)


class HeadRequests:
    """Answers HEAD with the head of what GET is answered (RFC 9110, 9.3.2); no stream is begun."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        inner = {**scope, "method": "GET"}  # a copy: the server looks at its own
        stream = asyncio.timeout(None)
        try:
            async with stream:
                await self.app(inner, receive, _without_body(send, stream))
        except TimeoutError:
            if not stream.expired():
                raise
        finally:
            scope.update(inner, method="HEAD")


def _without_body(send: Send, stream: asyncio.Timeout) -> Send:
    """Ends `stream` once it has sent a first part and goes on."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body"})
        elif message.get("more_body", False):
            stream.reschedule(asyncio.get_running_loop().time())
            await asyncio.Event().wait()  # for that end: whoever sends goes on with nothing

    return send_head


@dataclass(slots=True)
class BodyAllowance:
    """How much body a request may send, and how long each part of it may take.

    All parts together may take as long as one, and besides as long as `MIN_BODY_RATE` gives them.
    """

    max_bytes: int
    chunk_timeout: timedelta = BODY_TIMEOUT


ALLOWANCE_IN_SCOPE: Final = "jangada.body_allowance"


def allow_body(scope: Scope, *, max_bytes: int, chunk_timeout: timedelta) -> None:
    """Give this request another allowance than the usual; called before its body is read.

    Raises `RequestRefused` (413) at once where the announced length is already too much.
    """
    scope[ALLOWANCE_IN_SCOPE] = BodyAllowance(max_bytes, chunk_timeout)
    if (_announced_length(scope) or 0) > max_bytes:
        raise too_large(max_bytes)


def _announced_length(scope: Scope) -> int | None:
    value = header(scope, b"content-length") or b""
    return int(value) if value.isdigit() else None


class BodyLimit:
    """Ends a body that is too large (413) or too slow (408) while it streams, before it is kept.

    Nothing is read that the route does not ask for, so a route may refuse a request unread.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, patience: timedelta = BODY_TIMEOUT) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[ALLOWANCE_IN_SCOPE] = BodyAllowance(self.max_bytes, self.patience)
        await self.app(scope, _Metered(scope, receive), send)


class _Metered:
    """A `receive` that counts, bytes and the time that was spent waiting for them."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._received = 0
        self._waited = 0.0
        self._is_complete = False

    async def __call__(self) -> Message:
        if self._is_complete:
            return await self._receive()  # waits for the disconnect: no deadline
        allowance: BodyAllowance = self._scope[ALLOWANCE_IN_SCOPE]
        if (_announced_length(self._scope) or 0) > allowance.max_bytes:
            raise too_large(allowance.max_bytes)
        message = await self._next(allowance)
        self._received += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._received > allowance.max_bytes:
            raise too_large(allowance.max_bytes)
        return message

    async def _next(self, allowance: BodyAllowance) -> Message:
        began, patience = perf_counter(), allowance.chunk_timeout.total_seconds()
        left = patience + self._received / MIN_BODY_RATE - self._waited
        try:
            async with asyncio.timeout(min(patience, left)):
                return await self._receive()
        except TimeoutError:
            raise RequestRefused(408, headers={"Connection": "close"}) from None
        finally:
            self._waited += perf_counter() - began


class Failures:
    """Answers what escapes the routes with a problem document, inside all other middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer()
        try:
            await self.app(scope, receive, answer.watching(send))
        except ClientDisconnect:
            return  # nobody is there to be answered
        except Exception as error:
            if answer.status is not None:
                raise  # too late for another answer: the server ends the connection
            response = response_to(error)
            if isinstance(response, Problem):
                scope[CODE_IN_SCOPE] = response.code
            await response(scope, receive, send)


ORDER: Final = (
    RequestId,
    HttpMetrics,
    AccessLog,
    SecurityHeaders,
    HeadRequests,
    BodyLimit,
    Failures,
)
"""From the outside to the inside."""
