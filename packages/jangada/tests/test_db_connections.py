"""A transaction on psycopg's own connection, out of the pool: as sound as a session's."""

import asyncio

import psycopg
import pytest
from psycopg import errors as pg
from pydantic import SecretStr
from sqlalchemy import text

from jangada.config import DatabaseSettings
from jangada.connections import Connection
from jangada.db import Database
from jangada.db_errors import TransactionAborted
from jangada.postgres_errors import DatabaseBusy, DatabaseUnavailable
from jangada.testing import Person, eventually, make_person

pytestmark = pytest.mark.anyio

RENAME = "UPDATE tenants SET name = 'Renamed'"
KILL = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
LONG = "SELECT pg_sleep(600)"


async def names(connection: Connection) -> list[str]:
    cursor = await connection.execute("SELECT name FROM tenants ORDER BY name")
    return [row[0] for row in await cursor.fetchall()]


async def names_of(database: Database, person: Person) -> list[str]:
    async with database.connection(person.tenant_id) as connection:
        return await names(connection)


async def kill_all(database: Database) -> None:
    async with database.direct() as connection:
        await connection.execute(KILL)


async def test_it_commits_at_its_end_and_sees_one_tenant(
    database: Database, person: Person
) -> None:
    other = await make_person(database, "Bia")
    async with database.connection(person.tenant_id) as connection:
        await connection.execute(RENAME)
    assert await names_of(database, person) == ["Renamed"]
    assert await names_of(database, other) == ["Bia"]
    assert database.pool_usage().used == 0


async def test_the_scope_ends_with_the_transaction(database: Database, person: Person) -> None:
    async with database.connection(person.tenant_id) as connection:
        backend = connection.info.backend_pid
    async with database.engine.connect() as pooled:
        raw = (await pooled.get_raw_connection()).driver_connection
        assert isinstance(raw, Connection)
        assert raw.info.backend_pid == backend
        assert await names(raw) == []


async def test_an_exception_rolls_back(database: Database, person: Person) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.connection(person.tenant_id) as connection:
            await connection.execute(RENAME)
            raise ZeroDivisionError
    assert await names_of(database, person) == ["Ana"]


async def test_a_swallowed_error_does_not_pass_for_a_commit(
    database: Database, person: Person
) -> None:
    with pytest.raises(TransactionAborted):
        async with database.connection(person.tenant_id) as connection:
            await connection.execute(RENAME)
            with pytest.raises(pg.UndefinedColumn):
                await connection.execute("SELECT nonsense")
    assert await names_of(database, person) == ["Ana"]


async def test_our_own_mistakes_stay_what_they_are(database: Database, person: Person) -> None:
    with pytest.raises(pg.UndefinedColumn):
        async with database.connection(person.tenant_id) as connection:
            await connection.execute("SELECT nonsense")
    assert await names_of(database, person) == ["Ana"]


async def test_connections_that_died_in_the_pool_cost_nothing(
    database: Database, person: Person
) -> None:
    async with database.connection(person.tenant_id), database.connection(person.tenant_id):
        pass
    await kill_all(database)
    assert await names_of(database, person) == ["Ana"]


async def test_the_last_try_is_as_good_as_the_first(database_url: str, person: Person) -> None:
    settings = DatabaseSettings(url=SecretStr(database_url), pool_size=1)
    lonely = Database(settings)
    assert await names_of(lonely, person) == ["Ana"]
    await kill_all(lonely)
    assert await names_of(lonely, person) == ["Ana"]
    await lonely.close()


async def test_one_that_dies_in_the_block_is_unavailable(
    database: Database, person: Person
) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with database.connection(person.tenant_id) as connection:
            await connection.execute(RENAME)
            await kill_all(database)
            await connection.execute(RENAME)
    assert await names_of(database, person) == ["Ana"]


async def test_a_statement_that_takes_too_long_is_busy(database: Database, person: Person) -> None:
    with pytest.raises(DatabaseBusy):
        async with database.connection(person.tenant_id) as connection:
            await connection.execute("SET LOCAL statement_timeout = 1")
            await connection.execute(LONG)


async def test_a_cancelled_block_gives_its_connection_back(
    database: Database, person: Person
) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with database.connection(person.tenant_id) as connection:
            await connection.execute(RENAME)
            begun.set()
            await connection.execute(LONG)

    working = asyncio.create_task(work())
    await begun.wait()
    working.cancel()
    with pytest.raises((asyncio.CancelledError, psycopg.Error)):
        await working

    async def is_free() -> bool:
        return database.pool_usage().used == 0

    await eventually(is_free)
    assert await names_of(database, person) == ["Ana"]


async def test_a_block_that_ended_its_transaction_is_told(
    database: Database, person: Person
) -> None:
    """What it wrote after that would have no scope, and be committed one by one."""
    with pytest.raises(TransactionAborted):
        async with database.connection(person.tenant_id) as connection:
            await connection.execute(RENAME)
            await connection.rollback()
    with pytest.raises(TransactionAborted):
        async with database.transaction(person.tenant_id) as session:
            await session.execute(text(RENAME))
            await session.rollback()
    assert await names_of(database, person) == ["Ana"]


async def test_a_server_that_ends_each_connection_is_unavailable(
    database: Database, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked as often as there may be dead connections in the pool, and no more."""
    tries = 0

    async def end(connection: Connection, query: str) -> None:
        nonlocal tries
        assert query.startswith("BEGIN")
        tries += 1
        raise pg.AdminShutdown

    with monkeypatch.context() as patched, pytest.raises(DatabaseUnavailable):
        patched.setattr(Connection, "execute", end)
        async with database.connection(person.tenant_id):
            pass
    assert tries == database.settings.pool_size + 1
    assert await names_of(database, person) == ["Ana"]
