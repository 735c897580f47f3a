"""How connections to PostgreSQL are made, and given back."""

import asyncio

import pytest
from psycopg import errors as pg
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from jangada.config import DatabaseSettings
from jangada.connections import Connection
from jangada.db import Database
from jangada.testing import PATIENCE, Person

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


async def test_a_transaction_that_cannot_begin_gives_its_connection_back(
    database_url: str, person: Person
) -> None:
    """Also while somebody still holds the error, and with it what its frames refer to."""
    settings = {"url": SecretStr(database_url), "statement_timeout": "10000h"}
    database = Database(DatabaseSettings.model_validate(settings))
    with pytest.raises(DBAPIError) as refused:
        async with database.transaction(person.tenant_id):
            pytest.fail("PostgreSQL knows no such timeout")
    assert database.pool_usage().used == 0
    assert isinstance(refused.value.orig, pg.InvalidParameterValue)
    await database.close()
