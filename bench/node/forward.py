"""Hands connections on: `forward.py LISTENING HOST PORT`, run inside of a network.

The listening socket comes from outside, and stays there; connections are made from where this runs.
So a port of our loopback leads into a network that has no other way in.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

CHUNK = 1 << 16


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


class Forward:
    """Where connections go."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One that nobody takes over there is closed, without a word."""
        try:
            there, out = await asyncio.open_connection(*self._to)
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(pump(reader, out), pump(there, writer))
        finally:
            out.close()
            writer.close()


def go_first() -> None:
    """Before what is asked: users and their networks have machines of their own.

    In real time, since niceness counts within a control group only.
    """
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


async def main(arguments: Sequence[str]) -> None:
    go_first()
    listening = socket.socket(fileno=int(arguments[0]))
    to = Forward(arguments[1], int(arguments[2]))
    server = await asyncio.start_server(to, sock=listening)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
