"""What a caller sees, and what is left behind, when a transaction doesn't go as planned."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from psycopg import errors as pg
from psycopg.rows import TupleRow
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.commits import Notice, notice
from jangada.config import DatabaseSettings
from jangada.connections import Connection, arguments
from jangada.db import Database
from jangada.db_errors import TransactionAborted, translate
from jangada.errors import Unavailable
from jangada.local.postgres import EmbeddedPostgres
from jangada.postgres_errors import DatabaseBusy, DatabaseUnavailable
from jangada.scopes import milliseconds, plain_scope, system_scope, tenant_scope
from jangada.testing import Person, eventually

pytestmark = pytest.mark.anyio

PATIENCE = 30
WAIT = "SELECT 1 FROM pg_advisory_lock(4711)"
"""The test holds this lock, so the statement waits for as long as the test wants."""


def make(database_url: str, **settings: object) -> Database:
    return Database(
        DatabaseSettings.model_validate({"url": SecretStr(database_url), "pool_size": 1} | settings)
    )


@pytest.fixture
async def single(database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection: whoever leaks it stops the next."""
    database = make(database_url, pool_timeout="5s")
    yield database
    await database.close()


async def rename(session: AsyncSession, name: str = "Renamed") -> None:
    await session.execute(text("UPDATE tenants SET name = :name"), {"name": name})


async def name_of(database: Database, person: Person) -> str:
    async with database.read(person.tenant_id) as session:
        return str(await session.scalar(text("SELECT name FROM tenants")))


async def pid_of(session: AsyncSession) -> int:
    return int((await session.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def count(connection: psycopg.AsyncConnection[TupleRow], query: str) -> int:
    row = await (await connection.execute(query.encode())).fetchone()
    assert row is not None
    return int(row[0])


@asynccontextmanager
async def held(url: str) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
    """The lock that the statements under test run into."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(WAIT)
        yield connection


async def one_waits(connection: psycopg.AsyncConnection[TupleRow]) -> bool:
    return await count(connection, "SELECT count(*) FROM pg_locks WHERE NOT granted") == 1


async def none_is_open(connection: psycopg.AsyncConnection[TupleRow]) -> bool:
    query = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND pid <> pg_backend_pid() AND state <> 'idle'"""
    return await count(connection, query) == 0


async def rename_and_wait(database: Database, person: Person) -> None:
    async with database.transaction(person.tenant_id) as session:
        await rename(session)
        await session.execute(text(WAIT))


async def swallow(session: AsyncSession) -> None:
    with pytest.raises(ProgrammingError):
        await session.execute(text("SELECT nonsense"))


async def test_a_swallowed_error_does_not_pass_for_a_commit(
    database: Database, person: Person
) -> None:
    """PostgreSQL answers COMMIT by a rollback there, and calls it a success."""
    with pytest.raises(TransactionAborted):
        async with database.transaction(person.tenant_id) as session:
            await rename(session)
            await swallow(session)
    assert await name_of(database, person) == "Ana"


@pytest.mark.parametrize(
    "scope",
    [
        lambda connection, person: tenant_scope(connection, person.tenant_id),
        lambda connection, _: system_scope(connection, "test"),
        lambda connection, _: plain_scope(connection),
    ],
    ids=["tenant", "system", "plain"],
)
async def test_a_swallowed_error_on_a_direct_connection_does_not_either(
    database: Database, person: Person, scope: Callable[[Any, Person], Any]
) -> None:
    async with database.direct() as connection:
        with pytest.raises(TransactionAborted):
            async with scope(connection, person):
                await connection.execute("UPDATE tenants SET name = 'Renamed'")
                with pytest.raises(pg.UndefinedColumn):
                    await connection.execute("SELECT nonsense")
    assert await name_of(database, person) == "Ana"


async def test_an_error_in_a_savepoint_may_be_survived(database: Database, person: Person) -> None:
    async with database.transaction(person.tenant_id) as session:
        await rename(session)
        with pytest.raises(ProgrammingError):
            async with session.begin_nested():
                await session.execute(text("SELECT nonsense"))
    assert await name_of(database, person) == "Renamed"


async def test_what_fails_in_the_commit_reaches_the_caller(
    database: Database, person: Person
) -> None:
    told: list[frozenset[Notice]] = []

    async def notify(notices: frozenset[Notice]) -> None:
        told.append(notices)

    database.notify = notify
    async with database.system_transaction("test") as session:
        await session.execute(
            text("CREATE TABLE singles (n integer UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        )
    with pytest.raises(IntegrityError):
        async with database.transaction(person.tenant_id) as session:
            await rename(session)
            await session.execute(text("INSERT INTO singles VALUES (1), (1)"))
            notice(session, "wake", "default")
    assert await name_of(database, person) == "Ana"
    assert told == []


async def test_a_connection_lost_before_the_commit_reaches_the_caller(
    single: Database, person: Person, postgres: EmbeddedPostgres
) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with single.transaction(person.tenant_id) as session:
            await rename(session)
            await terminate(postgres, await pid_of(session))
    assert await name_of(single, person) == "Ana"


async def terminate(postgres: EmbeddedPostgres, *pids: int) -> None:
    connection = await psycopg.AsyncConnection.connect(postgres.admin_url, autocommit=True)
    async with connection:
        for pid in pids:
            await connection.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))


async def test_a_block_runs_once_though_every_pooled_connection_died(
    database_url: str, person: Person, postgres: EmbeddedPostgres
) -> None:
    database = make(database_url, pool_size=3)
    async with (
        database.read(person.tenant_id) as one,
        database.read(person.tenant_id) as two,
        database.read(person.tenant_id) as three,
    ):
        pids = [await pid_of(session) for session in (one, two, three)]
    await terminate(postgres, *pids)
    runs = []
    for _ in range(3):
        async with database.transaction(person.tenant_id) as session:
            runs.append(await pid_of(session))
    assert len(runs) == 3
    assert set(runs).isdisjoint(pids)
    await database.close()


async def test_a_block_is_not_run_again_when_its_own_connection_dies(
    single: Database, person: Person, postgres: EmbeddedPostgres
) -> None:
    runs = 0
    with pytest.raises(DatabaseUnavailable):
        async with single.transaction(person.tenant_id) as session:
            runs += 1
            await terminate(postgres, await pid_of(session))
            await session.execute(text("SELECT 1"))
    assert runs == 1


async def test_a_cancelled_statement_is_rolled_back_and_its_connection_free(
    single: Database, person: Person, database_url: str
) -> None:
    async with held(database_url) as connection:
        task = asyncio.create_task(rename_and_wait(single, person))
        await eventually(lambda: one_waits(connection))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: none_is_open(connection))
        assert await name_of(single, person) == "Ana"


async def test_a_cancel_scope_that_cancels_again_and_again_leaves_nothing_open(
    single: Database, person: Person, database_url: str
) -> None:
    """As anyio does (a client that disconnects): each `await` in the scope is cancelled anew."""
    async with held(database_url) as connection:
        async with anyio.create_task_group() as group:
            group.start_soon(rename_and_wait, single, person)
            await eventually(lambda: one_waits(connection))
            group.cancel_scope.cancel()
        await eventually(lambda: none_is_open(connection))
        assert await name_of(single, person) == "Ana"


async def test_a_block_cancelled_between_two_statements_gives_its_connection_back(
    single: Database, person: Person
) -> None:
    with anyio.CancelScope() as scope:
        async with single.transaction(person.tenant_id) as session:
            pid = await pid_of(session)
            await rename(session)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    async with single.read(person.tenant_id) as session:
        assert await pid_of(session) == pid
    assert await name_of(single, person) == "Ana"


async def test_whoever_is_cancelled_while_waiting_for_a_connection_takes_none(
    single: Database, person: Person
) -> None:
    async with single.transaction(person.tenant_id) as session:
        waiting = asyncio.create_task(name_of(single, person))
        await session.execute(text("SELECT 1"))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await rename(session)
    assert await name_of(single, person) == "Renamed"


async def test_an_exhausted_pool_serves_again_when_a_connection_is_back(
    database_url: str, person: Person
) -> None:
    database = make(database_url, pool_timeout="100ms")
    async with database.transaction(person.tenant_id):
        answers = await asyncio.gather(
            *(name_of(database, person) for _ in range(5)), return_exceptions=True
        )
    assert [type(answer) for answer in answers] == [DatabaseBusy] * 5
    assert await name_of(database, person) == "Ana"
    await database.close()


async def test_the_statement_timeout_ends_with_the_transaction(
    database_url: str, person: Person
) -> None:
    database = make(database_url, statement_timeout="7s")
    async with database.read(person.tenant_id) as session:
        assert await session.scalar(text("SHOW statement_timeout")) == "7s"
    async with database.engine.connect() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "0"
    await database.close()


@asynccontextmanager
async def frozen(pid: int) -> AsyncIterator[None]:
    """A server that neither answers nor says that it is gone, as on a machine that hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


LIMITS = {"statement_timeout": "200ms", "connect_timeout": "200ms"}


async def test_a_server_that_stops_answering_is_hung_up_on(
    database_url: str, person: Person
) -> None:
    """It ends no statement, whatever the statement timeout says."""
    database = make(database_url, **LIMITS)
    with pytest.raises(DatabaseUnavailable):
        async with (
            asyncio.timeout(PATIENCE),
            database.transaction(person.tenant_id) as session,
            frozen(await pid_of(session)),
        ):
            await rename(session)
    assert await name_of(database, person) == "Ana"
    await database.close()


async def test_a_pooled_connection_that_stops_answering_costs_no_request(
    database_url: str, person: Person
) -> None:
    database = make(database_url, **LIMITS)
    async with database.read(person.tenant_id) as session:
        pid = await pid_of(session)
    async with (
        asyncio.timeout(PATIENCE),
        frozen(pid),
        database.read(person.tenant_id) as session,
    ):
        assert await pid_of(session) != pid
    await database.close()


async def test_a_server_that_accepts_and_says_nothing_is_unavailable(
    servers_folder: Path,
) -> None:
    """As behind a load balancer whose server is gone: connecting has a deadline of its own."""
    folder = servers_folder / "silent"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / ".s.PGSQL.5432"))
        silent.listen()
        url = f"postgresql://u@/d?host={folder}"
        database = make(url, connect_timeout="1s")
        async with asyncio.timeout(PATIENCE):
            pooled, direct = await asyncio.gather(
                database.check_role(), connected(database), return_exceptions=True
            )
        await database.close()
    assert [type(pooled), type(direct)] == [DatabaseUnavailable] * 2


async def connected(database: Database) -> None:
    async with database.direct():
        pytest.fail("nobody answered")


async def test_a_direct_connection_waits_as_long_as_its_caller_wants(
    database: Database, database_url: str
) -> None:
    async with held(database_url) as holder, database.direct() as connection:
        assert isinstance(connection, Connection)
        assert connection.deadline is None
        waiting = asyncio.create_task(count(connection, WAIT))
        await eventually(lambda: one_waits(holder))
        await holder.execute("SELECT pg_advisory_unlock(4711)")
        assert await waiting == 1


async def test_a_deadline_around_a_direct_connection_ends_its_statement(
    database: Database, database_url: str
) -> None:
    async with held(database_url) as holder:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), database.direct() as connection:
                await connection.execute(WAIT)
        await eventually(lambda: none_is_open(holder))
        assert await count(holder, "SELECT count(*) FROM pg_locks WHERE NOT granted") == 0


async def test_a_lost_direct_connection_is_unavailable(
    database: Database, postgres: EmbeddedPostgres
) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with database.direct() as connection:
            await terminate(postgres, connection.info.backend_pid)
            await connection.execute("SELECT 1")


async def test_our_own_mistakes_on_a_direct_connection_stay_what_they_are(
    database: Database,
) -> None:
    with pytest.raises(pg.UndefinedColumn):
        async with database.direct() as connection:
            await connection.execute("SELECT nonsense")


async def test_the_values_of_a_failing_statement_are_not_told(
    database: Database, person: Person
) -> None:
    with pytest.raises(DBAPIError) as raised:
        async with database.transaction(person.tenant_id) as session:
            await session.execute(text("SELECT nonsense, :value"), {"value": "canary"})
    assert "canary" not in str(raised.value)


async def test_the_second_of_two_hosts_serves_when_the_first_is_away(
    database_url: str, person: Person
) -> None:
    """A failover pair, in libpq's way of writing it."""
    url = database_url.replace("host=", "host=%2Fnowhere,").replace("port=5432", "port=5432,5432")
    database = make(url)
    assert await name_of(database, person) == "Ana"
    async with database.direct() as connection:
        assert await count(connection, "SELECT 1") == 1
    await database.close()


def test_the_url_has_the_last_word_on_keepalives() -> None:
    url = "postgresql://u@h/d?keepalives_idle=1&application_name=theirs"
    found = arguments(DatabaseSettings(url=SecretStr(url)), SecretStr(url), "ours")
    assert (found["keepalives_idle"], found["keepalives_count"]) == ("1", 3)
    assert (found["application_name"], found["connect_timeout"]) == ("ours", 5)


@pytest.mark.parametrize(
    ("duration", "written"),
    [
        (timedelta(seconds=1), "1000"),
        (timedelta(microseconds=200), "1"),
        (timedelta(milliseconds=1.5), "2"),
        (timedelta(days=1), "86400000"),
    ],
)
def test_a_timeout_is_never_written_as_none(duration: timedelta, written: str) -> None:
    assert milliseconds(duration) == written


async def test_a_standby_takes_no_writes_and_that_passes(
    database: Database, person: Person
) -> None:
    """After a failover the old name may lead to a server that is read-only for a while."""
    async with database.direct() as connection:
        await connection.execute(
            """DO $$ BEGIN EXECUTE format(
                'ALTER DATABASE %I SET default_transaction_read_only = on', current_database()
            ); END $$"""
        )
    await database.engine.dispose()
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction(person.tenant_id) as session:
            await session.execute(text("UPDATE tenants SET name = 'x'"))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("57014", DatabaseBusy),
        ("55P03", DatabaseBusy),
        ("53300", DatabaseBusy),
        ("53100", DatabaseBusy),
        ("57P01", DatabaseUnavailable),
        ("57P03", DatabaseUnavailable),
        ("08006", DatabaseUnavailable),
        ("25P03", DatabaseUnavailable),
        ("25006", None),
        ("23505", None),
        ("42501", None),
        ("40P01", None),
    ],
)
def test_each_state_of_postgresql_is_trouble_of_a_known_kind(
    state: str, expected: type[Unavailable] | None
) -> None:
    error = pg.lookup(state)("told by PostgreSQL")
    known = translate(error)
    wrapped = translate(DBAPIError("SELECT 1", None, error))
    assert (type(known) if known else None) is expected
    assert (type(wrapped) if wrapped else None) is expected
    assert known is None or known.retry_after is not None


def test_a_full_pool_is_busy_and_a_broken_socket_unavailable() -> None:
    assert isinstance(translate(PoolTimeout()), DatabaseBusy)
    assert isinstance(translate(psycopg.OperationalError("gone")), DatabaseUnavailable)
    assert isinstance(translate(psycopg.InterfaceError("closed")), DatabaseUnavailable)
    assert translate(psycopg.ProgrammingError("our own")) is None
