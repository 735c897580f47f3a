"""How connections to PostgreSQL are made, and given up."""

import asyncio

import pytest

from jangada.connections import Connection
from jangada.testing import PATIENCE

pytestmark = pytest.mark.anyio


async def test_a_cancelled_attempt_to_connect_hangs_up() -> None:
    """Also while its task is still known, whose exception would keep the connection."""
    greeted, hung_up = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        greeted.set()
        await reader.read()
        hung_up.set()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        attempt = asyncio.create_task(Connection.connect(f"host=127.0.0.1 port={port}"))
        await greeted.wait()
        attempt.cancel()
        await asyncio.wait({attempt})
        async with asyncio.timeout(PATIENCE):
            await hung_up.wait()
    assert attempt.cancelled()
