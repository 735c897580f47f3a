"""The bounds at the socket, over real connections."""

import asyncio
import json
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from jangada.testing import eventually
from jangada_api.middleware import SECURITY_HEADERS, BodyLimit, Failures
from jangada_api.protocol import BoundedProtocol, ConnectionLimit

pytestmark = pytest.mark.anyio

LARGE = 64 * 1024 * 1024
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"


class Impatient(BoundedProtocol):
    head_seconds = 0.2
    write_seconds = 0.2


async def reply(send: Send, body: bytes) -> None:
    length = str(len(body)).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
    )
    await send({"type": "http.response.body", "body": body})


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, then answers with the names of the headers; `/unread` at once, with `ok`.

    The answer of `/large` is more than any buffer takes.
    """
    if scope["type"] != "http":
        return
    if scope["path"] == "/large":
        await reply(send, bytes(LARGE))
    if scope["path"] == "/unread":
        await reply(send, b"ok")
        return
    while (await receive()).get("more_body"):
        pass
    await reply(send, b",".join(name for name, _ in scope["headers"]))


BOUNDED = BodyLimit(Failures(read_all), max_bytes=1000)


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


@asynccontextmanager
async def serving(
    protocol: Callable[..., asyncio.Protocol], *, app: ASGIApp = BOUNDED
) -> AsyncIterator[int]:
    """The port of a server of `read_all`."""
    options: dict[str, Any] = {"http": protocol, "ws": "none", "lifespan": "off"}
    options |= {"log_config": None, "server_header": False}
    server = Server(uvicorn.Config(app, **options))
    listening = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server._serve([listening]))
    await server.is_up.wait()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(30):
            yield reader, writer
    finally:
        writer.close()


async def exchange(port: int, *parts: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """Send the parts one after the other; the status line, the headers and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.decode().lower().split(": ", 1) for line in lines)
    return status, headers, body


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(BoundedProtocol) as port:
        yield port


async def test_an_ordinary_request_is_answered(port: int) -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
    status, _, body = await exchange(port, request)
    assert (status, body) == (b"HTTP/1.1 200 OK", b"host,connection,content-length")


@pytest.mark.parametrize(
    "garbage", [b"GARBAGE\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01\x02\x00"]
)
async def test_what_is_not_http_is_answered_with_a_problem(port: int, garbage: bytes) -> None:
    status, headers, body = await exchange(port, garbage)
    assert status == b"HTTP/1.1 400 Bad Request"
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-request-id"] == json.loads(body)["request_id"]
    for name, value in SECURITY_HEADERS.items():
        assert headers[name.decode()] == value.decode().lower()


@pytest.mark.parametrize("chunk", [80_000, 1000])
async def test_a_head_that_is_too_large_is_431(port: int, chunk: int) -> None:
    """In one piece, and in pieces that never end."""
    value = [b"a" * chunk] * (80_000 // chunk)
    end = [b"\r\n\r\n"] if chunk == 80_000 else []
    status, _, body = await exchange(port, b"GET / HTTP/1.1\r\nX: ", *value, *end)
    assert status.startswith(b"HTTP/1.1 431")
    assert json.loads(body)["code"] == "request.headers_too_large"


async def test_large_bodies_do_not_count_as_head(port: int) -> None:
    body = b"a" * 900
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n"
    requests = [head + b"\r\n" + body] * 100 + [head + b"Connection: close\r\n\r\n" + body]
    status, _, _ = await exchange(port, *requests)
    assert status == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost"])
async def test_a_head_that_does_not_come_ends_the_connection(sent: bytes) -> None:
    async with serving(Impatient) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()


async def test_the_answer_to_a_body_that_is_too_large_arrives(port: int) -> None:
    """The client is still sending when the answer comes; closing at once would reset the answer."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    for _ in range(100):
        writer.write(chunk)
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"request.too_large" in answer


async def test_trailers_are_not_headers(port: int) -> None:
    trailers = b"Authorization: Bearer x\r\nX-Forwarded-For: 203.0.113.9\r\n"
    request = CHUNKED + b"Connection: close\r\n\r\n2\r\n{}\r\n0\r\n" + trailers + b"\r\n"
    status, _, body = await exchange(port, request)
    assert (status, body) == (b"HTTP/1.1 200 OK", b"host,transfer-encoding,connection")


@pytest.mark.parametrize(
    ("last_chunk", "line"),
    [(b"0\r\n", b"X: y\r\n"), (b"0\r\nX: ", b"a"), (b"0;", b"a")],
    ids=["many trailers", "one trailer without an end", "an extension"],
)
async def test_what_follows_the_last_chunk_is_bounded(
    port: int, last_chunk: bytes, line: bytes
) -> None:
    async with connected(port) as (reader, writer):
        writer.write(CHUNKED + b"\r\n2\r\n{}\r\n" + last_chunk)
        answer = asyncio.create_task(reader.read())
        sent = 0
        while not answer.done() and sent < LARGE:
            writer.write(line * (8192 // len(line)))
            await writer.drain()
            sent += 8192
        assert (await answer).startswith(b"HTTP/1.1 431 ")
    assert sent < LARGE


async def test_what_chunks_add_to_a_body_does_not_count_as_trailers(port: int) -> None:
    chunks = [b"1;" + b"x" * 100 + b"\r\na\r\n"] * 900
    request = CHUNKED + b"Connection: close\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"
    status, _, _ = await exchange(port, request)
    assert status == b"HTTP/1.1 200 OK"


async def test_an_answer_before_the_body_s_end_is_the_last_one(port: int) -> None:
    """What follows is neither taken for the rest of the body nor for a request."""
    head = b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 54\r\n"
    async with connected(port) as (reader, writer):
        writer.write(head + b"Expect: 100-continue\r\n\r\n")
        first = await reader.readuntil(b"ok")
        assert b"connection: close" in first.split(b"\r\n")
        assert not first.startswith(b"HTTP/1.1 100 ")
        writer.write(b"GET /unread HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        assert await reader.read() == b""


async def test_an_answer_after_the_body_keeps_the_connection(port: int) -> None:
    async with connected(port) as (reader, writer):
        for _ in range(3):
            assert not reader.at_eof()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
            await writer.drain()
            writer.write(b"abc")
            await reader.readuntil(b"host,content-length")


@pytest.mark.parametrize(
    ("path", "body"), [(b"/", b"\r\n"), (b"/", b"\r\nG"), (b"/unread", b"\r\n")]
)
async def test_a_line_break_after_an_answer_does_not_hold_the_connection(
    path: bytes, body: bytes
) -> None:
    async with serving(Impatient) as port, connected(port) as (reader, writer):
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        assert await reader.read() in {b"host", b"ok"}


async def test_a_byte_of_a_body_that_nobody_reads_does_not_hold_the_connection(port: int) -> None:
    async with connected(port) as (reader, writer):
        writer.write(b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\na")
        assert (await reader.read()).endswith(b"ok")


async def test_an_upgrade_that_nobody_takes_does_not_hold_the_connection() -> None:
    async with serving(Impatient) as port, connected(port) as (reader, writer):
        head = b"GET / HTTP/1.1\r\nHost: x\r\n"
        writer.write(head + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"PRI")
        assert await reader.read() == b"host,connection,upgrade"


async def test_a_client_that_does_not_take_its_answer_is_cut_off() -> None:
    cut_off = asyncio.Event()

    class Watched(Impatient):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            cut_off.set()

    async with serving(Watched) as port, connected(port) as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined] # of a socket
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await cut_off.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined] # of a socket
        assert len(await reader.read()) < LARGE


async def test_a_body_that_comes_in_drops_is_ended() -> None:
    """No part of it is late, the whole is."""
    slow = BodyLimit(Failures(read_all), max_bytes=LARGE, patience=timedelta(seconds=0.5))
    async with serving(BoundedProtocol, app=slow) as port, connected(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
        answer = asyncio.create_task(reader.read())
        while not answer.done():
            writer.write(b"a")
            await asyncio.wait({answer}, timeout=0.01)
        assert (await answer).startswith(b"HTTP/1.1 408 ")


def one_connection(answered: int = 100) -> Callable[..., asyncio.Protocol]:
    return partial(BoundedProtocol, limit=ConnectionLimit(1, answered))


async def test_connections_above_the_limit_are_refused_until_one_ends() -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with serving(one_connection()) as port:
        async with connected(port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"host")
            status, headers, body = await exchange(port)
            assert status == b"HTTP/1.1 503 Service Unavailable"
            assert headers["retry-after"] == "1"
            assert json.loads(body)["code"] == "service.unavailable"
            writer.write(request)
            assert b"HTTP/1.1 200 OK" in await reader.read()

        async def is_served() -> bool:
            return (await exchange(port, request))[0] == b"HTTP/1.1 200 OK"

        await eventually(is_served)


async def test_connections_far_above_the_limit_are_cut_off() -> None:
    async with serving(one_connection(answered=0)) as port, connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"host")
        async with connected(port) as (refused, _):
            assert await refused.read() == b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Type: a/b\r\n",
    ],
)
async def test_a_head_that_can_be_read_in_two_ways_is_refused(port: int, head: bytes) -> None:
    status, _, body = await exchange(port, head + b"\r\n")
    assert status == b"HTTP/1.1 400 Bad Request"
    assert json.loads(body)["code"] == "request.malformed"


async def test_http_1_0_needs_no_host(port: int) -> None:
    assert (await exchange(port, b"GET / HTTP/1.0\r\n\r\n"))[0] == b"HTTP/1.1 200 OK"


async def test_what_is_not_http_is_never_a_part_of_another_answer(port: int) -> None:
    async with connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGARBAGE\r\n\r\n")
        assert b"400" not in await reader.read()
