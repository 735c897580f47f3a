"""What is done at once after a commit: a single job without limits needs no dispatcher."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar

import pytest

from jangada.db import utc_now
from jangada.jobs import service
from jangada.jobs.delivery.tickets import Ticket
from jangada.jobs.limits import Concurrency
from jangada.jobs.models import Job
from jangada.jobs.schemas import JobArgs
from jangada.runtime import Runtime
from jangada.testing import Person

pytestmark = pytest.mark.anyio

AT_ONCE = timedelta(milliseconds=10)


class Feather(JobArgs):
    """A job that may start whatever else runs."""

    kind = "test.feather"
    queue = "feathers"


class Anvil(JobArgs):
    """One that may not."""

    kind = "test.anvil"
    queue = "anvils"
    concurrency: ClassVar[Concurrency | None] = Concurrency(limit=1)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request doesn't wait long for a notice to be taken; a test on a busy machine does."""
    monkeypatch.setattr("jangada.db.NOTICE_DEADLINE", timedelta(seconds=30))


async def offered(runtime: Runtime, queue: str) -> list[Ticket]:
    answer = await runtime.queue.claim(queue, "worker", 9, pod="pod")
    return [Ticket.read(claim) for claim in answer.claims]


async def is_woken(runtime: Runtime, queue: str) -> bool:
    return await runtime.queue.wait_for_dispatch([queue], AT_ONCE) == queue


@asynccontextmanager
async def full(runtime: Runtime) -> AsyncIterator[None]:
    """Valkey has no memory for another message."""
    await runtime.valkey.config_set("maxmemory", 1)
    try:
        yield
    finally:
        await runtime.valkey.config_set("maxmemory", 0)


async def enqueue(runtime: Runtime, person: Person, job: JobArgs) -> Job:
    async with runtime.database.transaction(person.tenant_id) as session:
        return await service.enqueue(session, job, tenant_id=person.tenant_id)


async def test_a_single_job_is_offered_to_workers(runtime: Runtime, person: Person) -> None:
    async with runtime.database.transaction(person.tenant_id) as session:
        job = await service.enqueue(session, Feather(), tenant_id=person.tenant_id)
        assert await offered(runtime, "feathers") == []
    expected = Ticket(person.tenant_id, job.id, 0, "test.feather")
    assert await offered(runtime, "feathers") == [expected]
    assert not await is_woken(runtime, "feathers")


async def test_several_jobs_are_the_dispatchers(runtime: Runtime, person: Person) -> None:
    async with runtime.database.transaction(person.tenant_id) as session:
        for _ in range(2):
            await service.enqueue(session, Feather(), tenant_id=person.tenant_id)
    assert await is_woken(runtime, "feathers")
    assert await offered(runtime, "feathers") == []


async def test_a_job_of_a_limited_kind_is_the_dispatchers(runtime: Runtime, person: Person) -> None:
    async with runtime.database.transaction(person.tenant_id) as session:
        await service.enqueue(session, Anvil(), tenant_id=person.tenant_id)
    assert await is_woken(runtime, "anvils")
    assert await offered(runtime, "anvils") == []


async def test_a_job_that_is_due_later_is_the_dispatchers(runtime: Runtime, person: Person) -> None:
    async with runtime.database.transaction(person.tenant_id) as session:
        await service.enqueue(
            session,
            Feather(),
            tenant_id=person.tenant_id,
            scheduled_at=utc_now() + timedelta(hours=1),
        )
    assert await is_woken(runtime, "feathers")
    assert await offered(runtime, "feathers") == []


async def test_each_queue_is_looked_at_by_itself(runtime: Runtime, person: Person) -> None:
    async with runtime.database.transaction(person.tenant_id) as session:
        await service.enqueue(session, Feather(), tenant_id=person.tenant_id)
        await service.enqueue(session, Anvil(), tenant_id=person.tenant_id)
    assert len(await offered(runtime, "feathers")) == 1
    assert await is_woken(runtime, "anvils")


async def test_nothing_goes_ahead_of_a_job_that_nobody_was_told_of(
    runtime: Runtime, person: Person
) -> None:
    """Neither the next job of its queue, nor all the others until a dispatcher looks by itself."""
    async with full(runtime):
        for _ in range(2):
            await enqueue(runtime, person, Feather())
            await enqueue(runtime, person, Anvil())
    await enqueue(runtime, person, Feather())
    assert await offered(runtime, "feathers") == []
    assert await is_woken(runtime, "feathers")
    assert await is_woken(runtime, "anvils")
    later = await enqueue(runtime, person, Feather())
    assert [ticket.job_id for ticket in await offered(runtime, "feathers")] == [later.id]
    assert not await is_woken(runtime, "anvils")
