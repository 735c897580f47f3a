"""Transactions, scopes and what reaches the caller when PostgreSQL does not do its part."""

from collections import Counter
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import TupleRow
from pydantic import SecretStr
from sqlalchemy import select, text

from jangada.commits import Notice, notice, tally
from jangada.config import DatabaseSettings
from jangada.db import Database
from jangada.local.postgres import EmbeddedPostgres
from jangada.postgres_errors import DatabaseBusy, DatabaseUnavailable
from jangada.scopes import plain_scope, system_scope, tenant_scope
from jangada.tenants.models import Role, Tenant
from jangada.testing import Person, make_person

pytestmark = pytest.mark.anyio


async def test_a_transaction_commits_at_its_end(database: Database, person: Person) -> None:
    async with database.transaction(person.tenant_id) as session:
        (await session.scalars(select(Tenant))).one().name = "Renamed"
    async with database.read(person.tenant_id) as session:
        assert (await session.scalars(select(Tenant.name))).one() == "Renamed"


async def test_an_exception_persists_nothing_and_sends_no_notice(
    database: Database, person: Person
) -> None:
    told: list[frozenset[Notice]] = []

    async def notify(notices: frozenset[Notice]) -> None:
        told.append(notices)

    database.notify = notify
    with pytest.raises(ZeroDivisionError):
        async with database.transaction(person.tenant_id) as session:
            (await session.scalars(select(Tenant))).one().name = "Renamed"
            await session.flush()
            notice(session, "wake", "default")
            raise ZeroDivisionError
    async with database.read(person.tenant_id) as session:
        assert (await session.scalars(select(Tenant.name))).one() == "Ana"
    assert told == []


async def test_what_is_tallied_counts_with_the_commit(database: Database, person: Person) -> None:
    counted: Counter[tuple[str, ...]] = Counter()
    database.tally = counted.update
    async with database.transaction(person.tenant_id) as session:
        tally(session, "letter", "blue")
        tally(session, "letter", "red", times=2)
        tally(session, "letter", "blue")
        assert not counted
    assert counted == {("letter", "blue"): 2, ("letter", "red"): 2}


async def test_what_a_session_loaded_is_detached_at_its_end(
    database: Database, person: Person
) -> None:
    """Else a use of it later would be a statement in no transaction."""
    async with database.transaction(person.tenant_id) as session:
        tenant = (await session.scalars(select(Tenant))).one()
        assert tenant in session
    assert tenant not in session


async def test_notices_are_sent_once_after_the_commit(database: Database, person: Person) -> None:
    told: list[tuple[str, ...]] = []

    async def notify(notices: frozenset[Notice]) -> None:
        async with database.read(person.tenant_id) as session:
            name = (await session.scalars(select(Tenant.name))).one()
        told.append((name, *(f"{n.topic} {n.subject}" for n in notices)))

    database.notify = notify
    async with database.transaction(person.tenant_id) as session:
        (await session.scalars(select(Tenant))).one().name = "Seen"
        notice(session, "wake", "default")
        notice(session, "wake", "default")
    assert told == [("Seen", "wake default")]


async def test_a_failing_notice_changes_nothing(database: Database, person: Person) -> None:
    async def notify(notices: frozenset[Notice]) -> None:
        raise ConnectionError

    database.notify = notify
    async with database.transaction(person.tenant_id) as session:
        (await session.scalars(select(Tenant))).one().name = "Kept"
        notice(session, "wake", "default")
    async with database.read(person.tenant_id) as session:
        assert (await session.scalars(select(Tenant.name))).one() == "Kept"


async def test_a_read_refuses_writes(database: Database, person: Person) -> None:
    with pytest.raises(Exception, match="read-only transaction"):
        async with database.read(person.tenant_id) as session:
            await session.execute(text("UPDATE tenants SET name = 'x'"))


async def test_a_connection_that_served_a_read_can_write_again(
    settings_with_one_connection: DatabaseSettings, person: Person
) -> None:
    database = Database(settings_with_one_connection)
    async with database.read(person.tenant_id) as session:
        await session.execute(select(Tenant))
    async with database.transaction(person.tenant_id) as session:
        (await session.scalars(select(Tenant))).one().name = "Written"
    async with database.read(person.tenant_id) as session:
        assert (await session.scalars(select(Tenant.name))).one() == "Written"
    await database.close()


async def test_the_scope_ends_with_the_transaction_on_a_reused_connection(
    settings_with_one_connection: DatabaseSettings, person: Person
) -> None:
    database = Database(settings_with_one_connection)
    async with database.system_transaction("test") as session:
        assert (await session.scalars(select(Tenant))).all() != []
    async with database.engine.connect() as connection:
        count = await connection.execute(text("SELECT count(*) FROM tenants"))
        assert count.scalar_one() == 0
    await database.close()


@pytest.fixture
def settings_with_one_connection(database_url: str) -> DatabaseSettings:
    return DatabaseSettings.model_validate(
        {"url": SecretStr(database_url), "pool_size": 1, "pool_timeout": "100ms"}
    )


async def test_an_exhausted_pool_is_busy_and_says_when_to_come_back(
    settings_with_one_connection: DatabaseSettings, person: Person
) -> None:
    database = Database(settings_with_one_connection)
    async with database.transaction(person.tenant_id):
        with pytest.raises(DatabaseBusy) as caught:
            async with database.transaction(person.tenant_id):
                pytest.fail("there is only one connection")
    assert caught.value.retry_after is not None
    await database.close()


async def test_an_absent_server_is_unavailable(tmp_path: object) -> None:
    url = SecretStr(f"postgresql://jangada@/jangada?host={tmp_path}")
    database = Database(DatabaseSettings(url=url))
    with pytest.raises(DatabaseUnavailable):
        async with database.system_transaction("test"):
            pytest.fail("nobody listens")
    with pytest.raises(DatabaseUnavailable):
        async with database.direct():
            pytest.fail("nobody listens")
    await database.close()


async def test_connections_that_died_in_the_pool_cost_no_request(
    database: Database, person: Person, postgres: EmbeddedPostgres
) -> None:
    async with database.transaction(person.tenant_id) as session:
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    async with await _admin(postgres) as admin:
        await admin.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
    async with database.transaction(person.tenant_id) as session:
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1


async def test_a_slow_statement_is_busy(database_url: str, person: Person) -> None:
    settings = {"url": SecretStr(database_url), "statement_timeout": "50ms"}
    database = Database(DatabaseSettings.model_validate(settings))
    with pytest.raises(DatabaseBusy):
        async with database.transaction(person.tenant_id) as session:
            await session.execute(text("SELECT pg_sleep(30)"))
    await database.close()


async def test_direct_scopes_hold_for_their_transaction_only(database: Database) -> None:
    one, other = await make_person(database, "One"), await make_person(database, "Other")
    async with database.direct() as connection:
        async with tenant_scope(connection, one.tenant_id):
            assert await _tenants(connection) == {one.tenant_id}
        assert await _tenants(connection) == set()
        async with system_scope(connection, "test"):
            assert await _tenants(connection) == {one.tenant_id, other.tenant_id}
        assert await _tenants(connection) == set()
        async with plain_scope(connection):
            assert await _tenants(connection) == set()
        assert await _tenants(connection) == set()


async def test_a_plain_scope_is_one_transaction(database: Database) -> None:
    async with database.direct() as connection:
        await connection.execute("CREATE TEMPORARY TABLE held (number integer)")
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with plain_scope(connection):
                await connection.execute("INSERT INTO held VALUES (1)")
                await connection.execute("SELECT 1 / 0")
        async with plain_scope(connection):
            await connection.execute("INSERT INTO held VALUES (2)")
        rows = await (await connection.execute("SELECT number FROM held")).fetchall()
    assert rows == [(2,)]


async def test_roles_of_another_tenant_are_absent(database: Database) -> None:
    one, other = await make_person(database, "One"), await make_person(database, "Other")
    async with database.read(one.tenant_id) as session:
        owners = (await session.scalars(select(Role.tenant_id))).all()
    assert owners == [one.tenant_id]
    assert other.tenant_id not in owners


async def test_a_schema_that_is_gone_is_the_server_s_trouble(
    database: Database, person: Person
) -> None:
    """Of requests and of a dispatcher alike: whoever restores it brings them back."""
    async with database.direct() as connection:
        await connection.execute("DROP TABLE contacts CASCADE")
    for scope in (
        database.transaction(person.tenant_id),
        database.read(person.tenant_id),
        database.system_transaction("test"),
    ):
        with pytest.raises(DatabaseUnavailable):
            async with scope as session:
                await session.execute(text("SELECT FROM contacts"))
    with pytest.raises(DatabaseUnavailable):
        async with database.connection(person.tenant_id) as connection:
            await connection.execute("SELECT FROM contacts")


async def _tenants(connection: psycopg.AsyncConnection[TupleRow]) -> set[UUID]:
    cursor = await connection.execute("SELECT id FROM tenants")
    return {row[0] for row in await cursor.fetchall()}


async def _admin(postgres: EmbeddedPostgres) -> psycopg.AsyncConnection[TupleRow]:
    return await psycopg.AsyncConnection.connect(postgres.admin_url, autocommit=True)
