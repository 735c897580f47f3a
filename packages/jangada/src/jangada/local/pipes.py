"""Reading what child processes write, line by line, without ever blocking the loop."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

MAX_LINE_BYTES = 256 * 1024


@dataclass
class Pipe:
    """Both ends of a pipe; closing twice does no harm."""

    reading: int
    writing: int

    def close_writing(self) -> None:
        self.writing = _closed(self.writing)

    def close_reading(self) -> None:
        self.reading = _closed(self.reading)


def _closed(descriptor: int) -> int:
    if descriptor >= 0:
        os.close(descriptor)
    return -1


@contextmanager
def open_pipe() -> Iterator[Pipe]:
    pipe = Pipe(*os.pipe())
    try:
        yield pipe
    finally:
        pipe.close_reading()
        pipe.close_writing()


@asynccontextmanager
async def _connected(pipe: Pipe) -> AsyncIterator[asyncio.StreamReader]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    file = os.fdopen(pipe.reading, "rb", buffering=0)
    pipe.reading = -1  # the transport closes it
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    try:
        yield reader
    finally:
        transport.close()


async def lines(pipe: Pipe) -> AsyncIterator[bytes]:
    """Lines until the writers are gone. A line without an end is cut into pieces."""
    async with _connected(pipe) as reader:
        rest = b""
        while chunk := await reader.read(64 * 1024):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line
            if len(rest) > MAX_LINE_BYTES:
                yield rest
                rest = b""
        if rest:
            yield rest
