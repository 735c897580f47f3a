"""Behind a pooler that hands each transaction to whichever server connection is free.

The pooler is the real one, Debian's pgbouncer in transaction mode, with two server connections for
all clients. `apt-get install pgbouncer` where it is missing.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from jangada.config import DatabaseSettings
from jangada.db import Database, new_id
from jangada.db_errors import PooledSession
from jangada.jobs import service
from jangada.jobs.delivery.connection import DirectConnection
from jangada.jobs.schemas import JobArgs
from jangada.local.credentials import own
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.process import Child, Command, plain_environ, wait_until
from jangada.migrations import run
from jangada.migrations.revisions import current, head
from jangada.postgres_errors import DatabaseUnavailable
from jangada.scopes import system_scope
from jangada.testing import eventually, make_person

pytestmark = pytest.mark.anyio

SERVER_CONNECTIONS = 2
PATIENCE = 30

CONFIGURATION = """
[databases]
* = host={server} port=5432

[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
"""


def find_program() -> str:
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("pgbouncer is not installed here: nothing of a pooler is tested")
    return found


@pytest.fixture(scope="session")
def pooler(postgres: EmbeddedPostgres, servers_folder: Path) -> Iterator[Path]:
    """The folder of pgbouncer's socket."""
    program, folder = find_program(), servers_folder / "pooler"
    folder.mkdir(mode=0o700)
    server = urlsplit(postgres.url)
    password = unquote(server.password or "")
    (folder / "users").write_text(f'"jangada" "{password}"\n')
    (folder / "ini").write_text(
        CONFIGURATION.format(
            server=parse_qs(server.query)["host"][0], folder=folder, size=SERVER_CONNECTIONS
        )
    )
    own(folder, postgres._credentials)
    command = Command(
        argv=[program, "-q", str(folder / "ini")],
        environ=plain_environ(),
        credentials=postgres._credentials,  # it refuses root, as PostgreSQL does
    )
    with (folder / "log").open("wb") as log:
        child = Child(command, output=log)
    try:
        socket = folder / ".s.PGSQL.6432"
        wait_until(lambda: socket.exists() or not child.is_running, PATIENCE)
        assert socket.exists(), (folder / "log").read_text()
        yield folder
    finally:
        child.stop(())


def through(pooler: Path, url: str) -> str:
    """The same database by way of the pooler."""
    parts = urlsplit(url)
    return (
        f"{parts.scheme}://{parts.netloc}{parts.path}?host={quote(str(pooler), safe='')}&port=6432"
    )


@pytest.fixture
def pooled_settings(pooler: Path, database_url: str) -> DatabaseSettings:
    return DatabaseSettings(
        pool_timeout=timedelta(minutes=1),  # how fast a busy machine is isn't the question here
        url=SecretStr(through(pooler, database_url)),
        direct_url=SecretStr(database_url),
        transaction_pooling=True,
    )


@pytest.fixture
async def pooled(pooled_settings: DatabaseSettings) -> AsyncIterator[Database]:
    database = Database(pooled_settings)
    yield database
    await database.close()


class Ping(JobArgs):
    """A row to write."""

    kind = "test.ping"


async def work(database: Database, tenant: UUID) -> int:
    """What a request does: writes and reads in its tenant; answers which server did it."""
    async with database.transaction(tenant) as session:
        job = await service.enqueue(session, Ping(), tenant_id=tenant)
        await service.cancel(session, tenant, job.id)
        owners = await session.scalars(text("SELECT DISTINCT tenant_id FROM jobs"))
        assert owners.all() == [tenant]
        return int((await session.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def test_tenants_that_share_server_connections_stay_apart(pooled: Database) -> None:
    tenants = [(await make_person(pooled, f"P{n}")).tenant_id for n in range(8)]
    servers = await asyncio.gather(*(work(pooled, tenant) for tenant in tenants * 8))
    assert 1 <= len(set(servers)) <= SERVER_CONNECTIONS
    async with pooled.direct() as connection, system_scope(connection, "test"):
        row = await (
            await connection.execute("SELECT count(*), count(DISTINCT tenant_id) FROM jobs")
        ).fetchone()
    assert row == (64, 8)


async def test_nothing_set_for_a_transaction_reaches_the_next_client(
    pooled: Database, pooled_settings: DatabaseSettings
) -> None:
    tenant = (await make_person(pooled)).tenant_id
    await asyncio.gather(*(work(pooled, tenant) for _ in range(10)))
    url = pooled_settings.url.get_secret_value()
    for _ in range(2 * SERVER_CONNECTIONS):
        async with await psycopg.AsyncConnection.connect(url, prepare_threshold=None) as other:
            cursor = await other.execute(
                """SELECT (SELECT count(*) FROM jobs), current_setting('jangada.tenant_id', true),
                    current_setting('jangada.scope', true), current_setting('statement_timeout')"""
            )
            row = await cursor.fetchone()
        assert row is not None
        assert (row[0], row[1] or "", row[2] or "", row[3]) == (0, "", "", "0")


async def test_no_statement_is_prepared_on_a_servers_account(pooled: Database) -> None:
    tenant = (await make_person(pooled)).tenant_id
    servers = {await work(pooled, tenant) for _ in range(20)}
    assert servers
    for _ in range(2 * SERVER_CONNECTIONS):
        async with pooled.read(tenant) as session:
            assert await session.scalar(text("SELECT count(*) FROM pg_prepared_statements")) == 0


async def test_a_read_only_transaction_leaves_no_read_only_connection(pooled: Database) -> None:
    tenant = (await make_person(pooled)).tenant_id
    for _ in range(2 * SERVER_CONNECTIONS):
        with pytest.raises(DBAPIError, match="read-only transaction"):
            async with pooled.read(tenant) as session:
                await session.execute(text("UPDATE tenants SET name = 'x'"))
        await work(pooled, tenant)


async def test_a_cancelled_statement_frees_its_server_connection(pooled: Database) -> None:
    tenant = (await make_person(pooled)).tenant_id
    async with pooled.direct() as holder:
        await holder.execute("SELECT pg_advisory_lock(4711)")
        waiting = [asyncio.create_task(wait(pooled, tenant)) for _ in range(SERVER_CONNECTIONS)]

        async def all_wait() -> bool:
            return await waiters(holder) == SERVER_CONNECTIONS

        await eventually(all_wait)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert [task.cancelled() for task in waiting] == [True] * SERVER_CONNECTIONS
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(work(pooled, tenant) for _ in range(5)))


async def wait(database: Database, tenant: UUID) -> None:
    async with database.transaction(tenant) as session:
        await session.execute(text("SELECT pg_advisory_lock(4711)"))


async def waiters(connection: psycopg.AsyncConnection[tuple[int]]) -> int:
    row = await (
        await connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
    ).fetchone()
    return row[0] if row else 0


async def test_what_needs_a_session_goes_around_the_pooler(
    pooled: Database, pooled_settings: DatabaseSettings, pooler: Path
) -> None:
    async with pooled.direct() as connection:
        assert connection.info.host != str(pooler)
        await connection.execute("CREATE TEMP TABLE stage (n integer)")
        await connection.execute("LISTEN anything")
        pids = {(await (await connection.execute("SELECT pg_backend_pid()")).fetchone())}
        assert pids == {(connection.info.backend_pid,)}
    assert current(pooled_settings) == head()


def test_migrations_go_around_the_pooler(pooler: Path, postgres: EmbeddedPostgres) -> None:
    name = f"pooled_{new_id().hex}"
    url = postgres.create_database(name)
    away = SecretStr("postgresql://u@/d?host=/nowhere")
    try:
        with pytest.raises(DatabaseUnavailable):
            run.upgrade(DatabaseSettings(url=SecretStr(through(pooler, url)), direct_url=away))
        settings = DatabaseSettings(url=away, direct_url=SecretStr(url))
        assert run.upgrade(settings) == head()
    finally:
        postgres.drop_database(name)


async def test_a_session_of_the_systems_is_refused_behind_a_pooler(
    pooled_settings: DatabaseSettings,
) -> None:
    """Whoever is given its server connection next would be in that scope."""
    forgotten = pooled_settings.model_copy(update={"direct_url": None})
    direct = DirectConnection(Database(forgotten), deadline=timedelta(minutes=1))
    with pytest.raises(PooledSession):
        await direct.run(lambda connection: connection.execute("SELECT 1"))
    await direct.close()
