"""HTTP/1.1 at the socket: uvicorn's protocol with the bounds that it lacks.

- A request's head must be complete within 10 s and 64 KiB, or the connection ends (431).
- What is not HTTP is answered with a problem document too, with the security headers.
- An answer that comes before the whole body is not lost: the sending side is closed, what still
  arrives is thrown away for a moment, and only then does the connection end. (Closing at once makes
  the kernel reset the connection, and the client never sees why.)
"""

import asyncio
from typing import Any, Final, override

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from jangada.db import new_id
from jangada.telemetry import bound
from jangada_api.middleware import SECURITY_HEADERS
from jangada_api.problems import answer

LINGER_SECONDS: Final = 2.0


class HeadTooLarge(Exception):
    """Ends the parsing of a request whose head is too large."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    head_seconds = 10.0
    max_head_bytes = 64 * 1024

    @override
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._is_in_head = True

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Lingering(transport, self.loop))  # type: ignore[arg-type]
        self._await_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > self.max_head_bytes:
                self.send_400_response("")

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    @override
    def on_headers_complete(self) -> None:
        self._head_arrived()
        self._head_bytes = len(self.url) + sum(len(n) + len(v) for n, v in self.headers)
        if self._head_bytes > self.max_head_bytes:
            raise HeadTooLarge
        self._head_bytes = 0
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head_arrived()
        self._is_in_head = True
        self._head_timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _head_arrived(self) -> None:
        self._is_in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    @override
    def send_400_response(self, msg: str) -> None:
        del msg
        status = 431 if self._head_bytes > self.max_head_bytes else 400
        request_id = str(new_id())
        with bound(request_id=request_id):
            response = answer(status)
        headers = [
            *self.server_state.default_headers,
            *response.raw_headers,
            *SECURITY_HEADERS.items(),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + bytes(response.body))
        self.transport.close()


class Lingering:
    """A transport whose `close` lets the last answer arrive; else the transport itself."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
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
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
            self._loop.call_later(LINGER_SECONDS, self._transport.close)
        else:
            self._transport.close()
