"""The bounds at the socket, over real connections."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from jangada_api.middleware import SECURITY_HEADERS, BodyLimit, Failures
from jangada_api.protocol import BoundedProtocol

pytestmark = pytest.mark.anyio


class Impatient(BoundedProtocol):
    head_seconds = 0.2


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, then answers 200."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


@asynccontextmanager
async def serving(protocol: type[asyncio.Protocol]) -> AsyncIterator[int]:
    """The port of a server of `read_all` that takes bodies up to 1,000 bytes."""
    app = BodyLimit(Failures(read_all), max_bytes=1000)
    options: dict[str, Any] = {"http": protocol, "ws": "none", "lifespan": "off"}
    server = Server(uvicorn.Config(app, log_config=None, server_header=False, **options))
    listening = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server._serve([listening]))
    await server.is_up.wait()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await task


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
    assert (status, body) == (b"HTTP/1.1 200 OK", b"ok")


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
