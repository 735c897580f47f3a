"""A direct connection outlives the connection it is made of."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import override

import pytest
from pydantic import SecretStr

from jangada import connections
from jangada.config import DatabaseSettings
from jangada.db import Database
from jangada.jobs.delivery import connection as connection_module
from jangada.jobs.delivery.connection import (
    LONGEST_IDLE,
    Connection,
    DirectConnection,
    Manner,
    indexed_scope,
)
from jangada.postgres_errors import DatabaseBusy, DatabaseUnavailable

pytestmark = pytest.mark.anyio

DEADLINE = timedelta(seconds=20)


async def backend(connection: Connection) -> int:
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


async def test_one_connection_serves_until_it_is_lost(database: Database) -> None:
    direct = DirectConnection(database, deadline=DEADLINE)
    first = await direct.run(backend)
    assert await direct.run(backend) == first
    async with database.direct() as other:
        await other.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
    with pytest.raises(DatabaseUnavailable):
        await direct.run(backend)
    assert await direct.run(backend) != first
    await direct.close()


MANNERLY = """
    SELECT current_setting('jangada.scope'),
        current_setting('idle_in_transaction_session_timeout'),
        current_setting('enable_seqscan'),
        current_setting('enable_sort'),
        current_setting('enable_hashjoin')
"""


@pytest.mark.parametrize(
    ("manner", "sort", "hashjoin"), [(Manner.INDEXED, "off", "on"), (Manner.PROBING, "on", "off")]
)
async def test_its_session_has_scope_and_manner_without_a_transaction(
    database: Database, manner: Manner, sort: str, hashjoin: str
) -> None:
    direct = DirectConnection(database, deadline=DEADLINE, manner=manner)

    async def settings(connection: Connection) -> object:
        return await (await connection.execute(MANNERLY)).fetchone()

    idle = f"{LONGEST_IDLE.seconds}s"
    assert await direct.run(settings) == ("system", idle, "off", sort, hashjoin)
    await direct.close()


async def test_work_of_two_does_not_mix(database: Database) -> None:
    direct = DirectConnection(database, deadline=DEADLINE)

    async def transaction(connection: Connection) -> str:
        async with connection.transaction():
            await connection.execute("SELECT set_config('x.y', '1', true)")
            await asyncio.sleep(0)
            return str(connection.info.transaction_status.name)

    assert set(await asyncio.gather(*(direct.run(transaction) for _ in range(5)))) == {"INTRANS"}
    await direct.close()


async def test_work_that_takes_too_long_is_ended(database: Database) -> None:
    direct = DirectConnection(database, deadline=timedelta(milliseconds=50))

    async def sleep(connection: Connection) -> None:
        await connection.execute("SELECT pg_sleep(30)")

    with pytest.raises(DatabaseUnavailable):
        await direct.run(sleep)
    await direct.close()


async def test_a_locked_row_is_busy(database: Database) -> None:
    direct = DirectConnection(database, deadline=DEADLINE)

    async def time_out(connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = 1")
            await connection.execute("SELECT pg_sleep(30)")

    with pytest.raises(DatabaseBusy):
        await direct.run(time_out)
    await direct.close()


async def test_an_absent_server_is_unavailable() -> None:
    settings = DatabaseSettings(url=SecretStr("postgresql:///x?host=/nonexistent"))
    database = Database(settings)
    direct = DirectConnection(database, deadline=DEADLINE)
    with pytest.raises(DatabaseUnavailable):
        await direct.run(backend)
    await direct.close()
    await database.close()


async def test_a_process_that_freezes_in_a_transaction_keeps_no_locks_for_ever(
    database: Database,
) -> None:
    async with database.direct() as connection:
        async with indexed_scope(connection, "test"):
            inside = await show(connection)
        assert (inside, await show(connection)) == (f"{LONGEST_IDLE.seconds}s", "0")


async def show(connection: Connection) -> str:
    cursor = await connection.execute("SHOW idle_in_transaction_session_timeout")
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])


GENERIC = """
    CREATE TEMP TABLE filling (id integer PRIMARY KEY);
    SET plan_cache_mode = force_generic_plan;
    PREPARE find AS SELECT * FROM filling WHERE id <= $1;
"""
FILL = "INSERT INTO filling SELECT generate_series(1, 100000)"


async def planned_rows(connection: Connection) -> int:
    """How many rows the plan of the prepared statement reckons with."""
    cursor = await connection.execute("EXPLAIN (FORMAT json) EXECUTE find(10)")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0][0]["Plan"]["Plan Rows"])


async def test_a_plan_made_for_an_empty_table_is_not_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue fills faster than statistics are taken."""
    monkeypatch.setattr(connection_module, "PLANS_LAST", 3600.0)
    direct = DirectConnection(database, deadline=DEADLINE)
    await direct.run(lambda found: found.execute(GENERIC))
    empty = await direct.run(planned_rows)
    await direct.run(lambda found: found.execute(FILL))
    assert await direct.run(planned_rows) == empty
    monkeypatch.setattr(connection_module, "PLANS_LAST", 0.0)
    assert await direct.run(planned_rows) > 10 * empty
    await direct.close()


class Freezing(Database):
    """Its server falls silent as soon as it is connected to."""

    frozen = 0

    @override
    @asynccontextmanager
    async def direct(self) -> AsyncIterator[connections.Connection]:
        async with super().direct() as connection:
            self.frozen = connection.info.backend_pid
            os.kill(self.frozen, signal.SIGSTOP)
            yield connection


async def test_a_server_that_falls_silent_as_it_is_set_up_is_hung_up_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To be asked to cancel it would have to listen, and we would wait for that."""
    cancels = list[dict[str, float]]()

    async def note(_: Connection, **options: float) -> None:
        cancels.append(options)

    monkeypatch.setattr(connections.Connection, "_try_cancel", note)
    freezing = Freezing(database.settings)
    direct = DirectConnection(freezing, deadline=timedelta(milliseconds=300))
    try:
        with pytest.raises(DatabaseUnavailable):
            await direct.run(backend)
    finally:
        os.kill(freezing.frozen, signal.SIGCONT)
    assert cancels == []
    await direct.close()
    await freezing.close()
