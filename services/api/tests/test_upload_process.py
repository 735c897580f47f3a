"""Uploads to a real server process: what it reads and holds in memory, what its death leaves."""

import asyncio
import json
import os
import signal
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos.forkserver import Forked, ForkServer
from sqlalchemy import text

from jangada.config import Settings
from jangada.files.uploads import sweep_uploads
from jangada.local.process import Child, Command
from jangada.runtime import Runtime
from jangada.testing import MASTER_KEY, Person, eventually, eventually_not
from jangada_api.testing import SignIn

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

MEBIBYTE = 1024 * 1024
FRAME = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'


@dataclass
class Server:
    """The API with one upload route, as a process of its own."""

    process: Child | Forked
    port: int
    authorization: str

    @asynccontextmanager
    async def request(self, *headers: str) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
        """A connection that has sent the head of an upload and no body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = ["POST /test/uploads HTTP/1.1", "Host: api.test", *headers]
        writer.write("\r\n".join([*head, "", ""]).encode())
        try:
            yield reader, writer
        finally:
            writer.close()

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


@pytest.fixture
async def server(
    *, forks: ForkServer, settings: Settings, person: Person, sign_in: SignIn, tmp_path: Path
) -> AsyncIterator[Server]:
    environment = os.environ | {
        "JANGADA_DATABASE__URL": settings.database.url.get_secret_value(),
        "JANGADA_VALKEY__URL": settings.valkey.url.get_secret_value(),
        "JANGADA_AUTH__MASTER_KEY": MASTER_KEY,
        "JANGADA_STORAGE__URL": settings.storage.url,
        "JANGADA_STORAGE__MAX_UPLOADS_PER_PROCESS": "2",
        "JANGADA_TELEMETRY__LOG_FORMAT": "json",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    reading, writing = os.pipe()
    command = Command(
        argv=[sys.executable, "-m", "upload_server", str(writing)],
        environ=environment,
        death_signal=signal.SIGKILL,
    )
    with (tmp_path / "upload_server.log").open("wb") as output:
        process = forks.start(command, output.fileno(), [writing])
    os.close(writing)
    loop = asyncio.get_running_loop()
    with os.fdopen(reading) as pipe:
        port = int(await asyncio.wait_for(loop.run_in_executor(None, pipe.readline), 60))
    authorization = f"Authorization: {(await sign_in(person))['Authorization']}"
    yield Server(process, port, authorization)
    process.send(signal.SIGTERM)
    await ended(process)


async def ended(process: Child | Forked) -> None:
    await asyncio.wait_for(asyncio.wrap_future(process.ended), 30)


def stored(settings: Settings) -> list[Path]:
    root = Path(settings.storage.url.removeprefix("file://"))
    return [path for path in root.rglob("*") if path.is_file()]


async def rows(runtime: Runtime) -> int:
    """Of uploads, and of blobs that are to be removed."""
    async with runtime.database.system_transaction("test") as session:
        count = "SELECT (SELECT count(*) FROM files) + (SELECT count(*) FROM deleted_blobs)"
        return int(await session.scalar(text(count)) or 0)


async def assert_nothing_left(runtime: Runtime) -> None:
    """The server learns of a broken connection when it looks."""
    await eventually_not(lambda: rows(runtime))
    await eventually_not(lambda: stored(runtime.settings))


async def streaming(settings: Settings, writer: StreamWriter) -> None:
    """Send until something of it is on the disk."""
    async with asyncio.timeout(30):
        while not any(path.stat().st_size for path in stored(settings)):
            writer.write(bytes(MEBIBYTE))
            await writer.drain()


async def test_who_is_not_signed_in_is_not_even_told_to_continue(server: Server) -> None:
    """curl asks first for large files; the server's `100 Continue` would mean that it reads."""
    async with server.request(
        "Content-Type: text/csv", "Content-Length: 1000000", "Expect: 100-continue"
    ) as (reader, _):
        assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 401")


async def test_who_is_signed_in_is_told_to_continue(server: Server) -> None:
    async with server.request(
        server.authorization,
        "Content-Type: text/csv",
        "Content-Length: 3",
        "Connection: close",
        "Expect: 100-continue",
    ) as (reader, writer):
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30) == (
            b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        writer.write(b"a\nb")
        assert b"201 Created" in await asyncio.wait_for(reader.read(), 30)


async def test_who_finds_no_place_is_not_told_to_continue(server: Server) -> None:
    head = (
        *(server.authorization, "Content-Type: text/csv", "Content-Length: 1000000"),
        "Expect: 100-continue",
    )
    async with server.request(*head) as (first, _), server.request(*head) as (second, _):
        for reader in (first, second):
            assert b" 100 " in await asyncio.wait_for(reader.readline(), 30)
        async with server.request(*head) as (refused, _):
            answer = await asyncio.wait_for(refused.readuntil(b"\r\n\r\n"), 30)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 5\r\n" in answer


async def test_a_client_that_is_killed_leaves_nothing(
    server: Server, settings: Settings, runtime: Runtime
) -> None:
    async with server.request(
        server.authorization, "Content-Type: text/csv", "Content-Length: 100000000"
    ) as (_, writer):
        await streaming(settings, writer)
        assert await rows(runtime) == 1
        writer.transport.abort()
    await assert_nothing_left(runtime)


async def test_a_server_that_is_killed_leaves_nothing_once_the_lease_is_over(
    server: Server, settings: Settings, runtime: Runtime
) -> None:
    async with server.request(
        server.authorization, "Content-Type: text/csv", "Transfer-Encoding: chunked"
    ) as (_, writer):
        writer.write(f"{100 * MEBIBYTE:x}\r\n".encode())
        await streaming(settings, writer)
        server.process.send(signal.SIGKILL)
        await ended(server.process)
    assert await rows(runtime) == 1
    assert len(stored(settings)) == 1
    await eventually(lambda: sweep_uploads(runtime))
    await assert_nothing_left(runtime)


async def test_a_server_that_is_stopped_does_not_wait_for_ever_and_leaves_nothing(
    server: Server, settings: Settings, runtime: Runtime
) -> None:
    """It cancels the upload; what it has no time to clear up is the sweep's."""
    async with server.request(
        server.authorization, "Content-Type: text/csv", "Content-Length: 100000000"
    ) as (_, writer):
        await streaming(settings, writer)
        server.process.send(signal.SIGTERM)
        await ended(server.process)
    async with asyncio.timeout(30):
        while await rows(runtime) or stored(settings):
            await sweep_uploads(runtime)


@pytest.mark.parametrize(
    ("media_type", "before", "after"),
    [
        ("text/csv", b"", b""),
        ("multipart/form-data; boundary=b", FRAME, b"\r\n--b--\r\n"),
    ],
)
async def test_memory_is_flat_whatever_the_size(
    *, server: Server, settings: Settings, media_type: str, before: bytes, after: bytes
) -> None:
    async def send(mebibytes: int) -> int:
        length = len(before) + mebibytes * MEBIBYTE + len(after)
        async with server.request(
            server.authorization,
            f"Content-Type: {media_type}",
            f"Content-Length: {length}",
            "Connection: close",
        ) as (reader, writer):
            writer.write(before)
            for _ in range(mebibytes):
                writer.write(bytes(MEBIBYTE))
                await writer.drain()
            writer.write(after)
            answer = await asyncio.wait_for(reader.read(), 60)
        size: int = json.loads(answer.partition(b"\r\n\r\n")[2])["size_bytes"]
        return size

    assert await send(16) == 16 * MEBIBYTE
    before_large = server.peak_bytes()
    assert await send(200) == 200 * MEBIBYTE
    assert server.peak_bytes() - before_large < 16 * MEBIBYTE
    assert sum(path.stat().st_size for path in stored(settings)) == 216 * MEBIBYTE
