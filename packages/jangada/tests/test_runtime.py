"""The composition root: opened without anybody there, told of commits, closed in any case."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from redis.exceptions import ConnectionError as ValkeyGone
from sqlalchemy import text

from jangada.auth_settings import AuthSettings
from jangada.config import DatabaseSettings, Settings, ValkeySettings
from jangada.db import Database, PoolUsage, new_id
from jangada.environment import InvalidSettings
from jangada.jobs import service
from jangada.jobs.schemas import JobArgs
from jangada.postgres_errors import DatabaseUnavailable
from jangada.runtime import Runtime, SystemClock, open_runtime, open_valkey
from jangada.testing import FrozenClock, Person, frozen_runtime

pytestmark = pytest.mark.anyio

PATIENCE = 30
NOWHERE = ValkeySettings(url=SecretStr("unix:///nowhere/valkey"))


class Ping(JobArgs):
    """A job that wakes its queue."""

    kind = "test.ping"


@pytest.fixture
async def lonely(settings: Settings) -> AsyncIterator[Runtime]:
    """A runtime whose Valkey is away."""
    async with open_runtime(settings.model_copy(update={"valkey": NOWHERE})) as runtime:
        yield runtime


async def enqueue(runtime: Runtime, person: Person) -> None:
    async with runtime.database.transaction(person.tenant_id) as session:
        job = await service.enqueue(session, Ping(), tenant_id=person.tenant_id)
        await session.execute(text("UPDATE jobs SET state = 'running'"))
        await service.cancel(session, person.tenant_id, job.id)


async def test_a_runtime_opens_although_nothing_is_there(settings: Settings) -> None:
    away = DatabaseSettings(url=SecretStr("postgresql://u@/d?host=/nowhere"))
    absent = settings.model_copy(update={"valkey": NOWHERE, "database": away})
    async with open_runtime(absent) as runtime:
        with pytest.raises(DatabaseUnavailable):
            await runtime.database.check_role()
        with pytest.raises(ValkeyGone):
            await runtime.valkey.ping()


async def test_a_commit_reaches_valkey(runtime: Runtime, person: Person) -> None:
    async with (
        asyncio.timeout(PATIENCE),
        runtime.valkey.pubsub(ignore_subscribe_messages=True) as listener,
    ):
        await listener.subscribe(f"{runtime.queue.prefix}:cancel")
        await enqueue(runtime, person)
        message = None
        while message is None:
            message = await listener.get_message(timeout=1)
    keys = runtime.queue.keys("default")
    assert await runtime.valkey.exists(keys.wake) == 1
    assert message["type"] == "message"


async def test_a_commit_does_not_depend_on_valkey(lonely: Runtime, person: Person) -> None:
    await enqueue(lonely, person)
    async with lonely.database.read(person.tenant_id) as session:
        assert await session.scalar(text("SELECT count(*) FROM jobs")) == 1


async def test_the_pool_says_how_much_of_it_is_in_use(database: Database, person: Person) -> None:
    assert database.pool_usage().used == 0
    async with database.read(person.tenant_id):
        assert database.pool_usage() == PoolUsage(used=1, idle=0, maximum=10)
    assert (database.pool_usage().used, database.pool_usage().idle) == (0, 1)


async def test_a_runtime_needs_the_master_key(settings: Settings) -> None:
    with pytest.raises(InvalidSettings, match="JANGADA_AUTH__MASTER_KEY"):
        async with open_runtime(settings.model_copy(update={"auth": AuthSettings()})):
            pytest.fail("cursors could not be signed")


async def test_commands_to_valkey_have_a_deadline_and_are_not_repeated() -> None:
    client = open_valkey(ValkeySettings(connect_timeout="1s", command_timeout="2s"))
    options = client.connection_pool.connection_kwargs
    assert (options["socket_connect_timeout"], options["socket_timeout"]) == (1, 2)
    assert options["retry"]._retries == 0
    await client.aclose()


async def test_the_clock_is_the_systems_or_the_tests(
    settings: Settings, clock: FrozenClock
) -> None:
    before = datetime.now(UTC)
    assert before <= SystemClock().now() <= datetime.now(UTC)
    async with frozen_runtime(settings, clock) as runtime:
        assert runtime.clock.now() == clock.present


def test_ids_are_of_version_7_and_grow() -> None:
    ids = [new_id() for _ in range(1000)]
    assert {(each.version, each.variant) for each in ids} == {(7, ids[0].variant)}
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
