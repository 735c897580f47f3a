"""A scope ends with its transaction, however that ends and whoever has the connection next."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from jangada.config import Settings
from jangada.connections import Connection
from jangada.db import Database
from jangada.scopes import open_system_session, plain_scope, system_scope, tenant_scope
from jangada.testing import Person, make_person

pytestmark = pytest.mark.anyio

STEPS: Final = ("one", "other", "system", "read", "failed", "savepoint", "cancelled")


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=8))
async def test_no_scope_outlives_its_transaction_on_a_pooled_connection(
    lonely: tuple[Database, UUID, UUID], steps: list[str]
) -> None:
    database, one, other = lonely
    for step in steps:
        await take(step, database, one, other)
        async with database.engine.connect() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM tenants")) == 0


@pytest.fixture
async def lonely(settings: Settings) -> AsyncIterator[tuple[Database, UUID, UUID]]:
    """A pool with one connection, which two tenants share."""
    database = Database(settings.database.model_copy(update={"pool_size": 1}))
    one, other = await make_person(database, "One"), await make_person(database, "Other")
    yield database, one.tenant_id, other.tenant_id
    await database.close()


async def take(step: str, database: Database, one: UUID, other: UUID) -> None:
    visible = text("SELECT id FROM tenants ORDER BY id")
    if step == "system":
        async with database.system_transaction("test") as session:
            assert {*(await session.scalars(visible))} >= {one, other}
        return
    scope = database.read(one) if step == "read" else database.transaction(one)
    if step == "other":
        scope, one = database.transaction(other), other
    async with endings(step), scope as session:
        if step == "savepoint":
            async with endings("failed"), session.begin_nested():
                await session.execute(text("SELECT set_config('jangada.tenant_id', '', true)"))
                raise ZeroDivisionError
        assert (await session.scalars(visible)).all() == [one]
        if step == "failed":
            raise ZeroDivisionError
        if step == "cancelled":
            raise asyncio.CancelledError


@asynccontextmanager
async def endings(step: str) -> AsyncIterator[None]:
    try:
        yield
    except ZeroDivisionError:
        assert step == "failed"
    except asyncio.CancelledError:
        assert step == "cancelled"


async def test_tenants_that_take_turns_on_few_connections_stay_apart(settings: Settings) -> None:
    database = Database(settings.database.model_copy(update={"pool_size": 2}))
    tenants = [(await make_person(database, f"P{n}")).tenant_id for n in range(6)]

    async def look(tenant: UUID) -> bool:
        async with database.transaction(tenant) as session:
            await session.execute(text("UPDATE tenants SET name = name"))
            return (await session.scalars(text("SELECT id FROM tenants"))).all() == [tenant]

    assert all(await asyncio.gather(*(look(tenant) for tenant in tenants * 10)))
    await database.close()


async def test_a_session_of_the_systems_sees_all_tenants_but_in_the_scope_of_one(
    database: Database, person: Person
) -> None:
    count = "SELECT count(*) FROM tenants"
    await make_person(database, "Bia")

    async def seen(connection: Connection) -> int:
        (row,) = await (await connection.execute(count)).fetchall()
        return int(row[0])

    async with database.direct() as connection:
        assert await seen(connection) == 0
        await open_system_session(connection, "test")
        assert await seen(connection) == 2
        async with tenant_scope(connection, person.tenant_id):
            assert await seen(connection) == 1
        async with plain_scope(connection):
            assert await seen(connection) == 0
        async with system_scope(connection, "test"):
            assert await seen(connection) == 2
