"""HTTP/1.1 at the socket: uvicorn's protocol with the bounds that it lacks.

- A request's head must be complete within 10 s and 64 KiB, or the connection ends (431). So must
  the trailers of a chunked body be small; they are thrown away, never taken for headers.
- A head that servers and proxies could read in two ways is refused (400): no `Host` or two, two
  media types, a transfer coding other than `chunked`.
- What is not HTTP is answered with a problem document too, with the security headers.
- Every connection ends by itself: while it waits for a request, while it sends one (the middleware
  sees to bodies that are read), and while it does not take its answer.
- An answer that comes before the whole body ends the connection, since what still comes could be
  taken for the next request. It is not lost: the sending side is closed, what still arrives is
  thrown away for a moment, and only then does the connection end. (Closing at once makes the kernel
  reset the connection, and the client never sees why.)
- Connections above the limit are answered 503.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, override

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from jangada.db import new_id
from jangada.telemetry import bound
from jangada_api.middleware import SECURITY_HEADERS
from jangada_api.problems import answer

LINGER_SECONDS: Final = 2.0

type Headers = Sequence[tuple[bytes, bytes]]

_REFUSED_WITH: Final = {503: {"Retry-After": "1"}}
_CLOSE: Final = (b"connection", b"close")
_AT_MOST_ONCE: Final = (b"host", b"content-type", b"transfer-encoding")


class HeadTooLarge(Exception):
    """Ends the parsing of a request whose head is too large."""


class HeadAmbiguous(Exception):
    """Ends the parsing of a request whose head could be understood in two ways."""


@dataclass(slots=True)
class ConnectionLimit:
    """How many connections one server has at once; uvicorn's own limit counts after the head."""

    connections: int = 1000
    answered: int = 100
    """So many above the limit are told why they are refused; those above these are cut off."""
    turned_away: int = 0
    """Those that are being told."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    head_seconds = 10.0
    write_seconds = 30.0
    """How long a client may take none of what waits for it."""
    max_head_bytes = 64 * 1024

    @override
    def __init__(self, *args: Any, limit: ConnectionLimit | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._routes, self.app = self.app, self._answered
        self._limit = limit or ConnectionLimit()
        self._is_turned_away = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        """What came since the last byte of a body: of a head, of trailers, of neither."""
        self._is_in_head = True
        self._is_in_message = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        lingering = Lingering(transport, self.loop, self.write_seconds)
        super().connection_made(lingering)  # type: ignore[arg-type]
        if len(self.connections) > self._limit.connections:
            self._turn_away()
        else:
            self._await_head()

    def _turn_away(self) -> None:
        self.connections.discard(self)
        if self._limit.turned_away >= self._limit.answered:
            self.transport.abort()
        else:
            self._limit.turned_away += 1
            self._is_turned_away = True
            self._refuse(503)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        self._stop_write_timer()
        if self._is_turned_away:
            self._limit.turned_away -= 1
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # after the last answer there is no further request
        self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_bytes > self.max_head_bytes:
            self.send_400_response("")
        elif self._head_timer is None and not self._is_in_message and not self._is_answering():
            self._await_head()  # a line break after an answer stops uvicorn's own timer

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_message = True
        self._await_head()

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        self._head_arrived()
        self._head_bytes = len(self.url) + sum(len(n) + len(v) for n, v in self.headers)
        if self._head_bytes > self.max_head_bytes:
            raise HeadTooLarge
        self._head_bytes = 0
        if not _is_clear(self.parser.get_http_version(), self.headers):
            raise HeadAmbiguous
        super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._is_in_message = False
        super().on_message_complete()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.write_seconds, self.transport.abort)

    @override
    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _await_head(self) -> None:
        self._head_arrived()
        self._is_in_head = True
        self._head_timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _head_arrived(self) -> None:
        self._is_in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _is_answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application; what it answers before the body's end is this connection's last word."""

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_coming(scope):
                others = (item for item in message.get("headers", ()) if item[0] != _CLOSE[0])
                message = {**message, "headers": [*others, _CLOSE]}
            await send(message)

        await self._routes(scope, receive, send_last)

    def _is_coming(self, scope: Scope) -> bool:
        """Whether more of the request is to come."""
        return self._is_in_message and scope is self.scope

    @override
    def send_400_response(self, msg: str) -> None:
        del msg
        is_own = self._is_answering() and self.cycle.scope is self.scope
        if self._is_answering() and (not is_own or self.cycle.response_started):
            self.transport.close()  # it would be read as a part of the answer to another request
        else:
            self._refuse(431 if self._head_bytes > self.max_head_bytes else 400)

    def _refuse(self, status: int) -> None:
        request_id = str(new_id())
        with bound(request_id=request_id):
            response = answer(status, headers=_REFUSED_WITH.get(status))
        headers = [
            *self.server_state.default_headers,
            *response.raw_headers,
            *SECURITY_HEADERS.items(),
            (b"x-request-id", request_id.encode()),
            _CLOSE,
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + bytes(response.body))
        self.transport.close()


def _is_clear(version: str, headers: Headers) -> bool:
    """Whether everybody on the way understands the head as we do (RFC 9112, §3.2 and §6.1)."""
    names = [name for name, _ in headers]
    if any(names.count(name) > 1 for name in _AT_MOST_ONCE):
        return False
    coding = next((value.lower() for name, value in headers if name == b"transfer-encoding"), None)
    if version == "1.1":
        return b"host" in names and coding in {None, b"chunked"}
    return coding is None


class Lingering:
    """A transport whose `close` lets the last answer arrive; else the transport itself."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, write_seconds: float
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._write_seconds = write_seconds
        self._is_closing = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the transport has
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._is_closing or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if not self._is_closing:
            self._transport.write(data)

    def close(self) -> None:
        if self.is_closing():
            return
        self._is_closing = True
        try:
            self._transport.write_eof()
        except OSError:
            self._transport.abort()  # the client is gone
        else:
            self._transport.resume_reading()
            self._loop.call_later(LINGER_SECONDS, self._end)

    def _end(self) -> None:
        # A transport closes once all is written: never, where the client takes nothing.
        if self._transport.get_write_buffer_size():
            self._loop.call_later(self._write_seconds, self._transport.abort)
        self._transport.close()
