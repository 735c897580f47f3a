"""The job that erases what a deleted account has left."""

from uuid import UUID

import pytest
from sqlalchemy import func, select, update

import jangada_worker.accounts  # noqa: F401 - registers the handler
from jangada.accounts.schemas import EraseTenant
from jangada.db import new_id
from jangada.jobs import registry, service
from jangada.jobs.context import JobContext
from jangada.jobs.errors import LeaseLost
from jangada.jobs.models import Job, JobState
from jangada.runtime import Runtime
from jangada.tenants.models import Membership, Role, Tenant
from jangada.testing import Person, make_person

pytestmark = pytest.mark.anyio


async def granted(runtime: Runtime, tenant_id: UUID) -> JobContext:
    """The erasing job, as a worker holds it after its grant."""
    async with runtime.database.transaction(tenant_id) as session:
        job = await service.enqueue(session, EraseTenant(), tenant_id=tenant_id)
        values = {"state": JobState.RUNNING, "attempt": 1, "worker_id": new_id()}
        await session.execute(update(Job).where(Job.id == job.id).values(values))
    return JobContext(runtime, tenant_id, job.id, attempt=1, max_attempts=20)


async def left(runtime: Runtime, tenant_id: UUID) -> list[int]:
    async with runtime.database.system_transaction("test") as session:
        return [
            await session.scalar(select(func.count()).where(column == tenant_id)) or 0
            for column in (Tenant.id, Role.tenant_id, Membership.tenant_id, Job.tenant_id)
        ]


async def test_the_tenant_goes_and_the_job_with_it(runtime: Runtime, person: Person) -> None:
    other = await make_person(runtime.database, "Bia")
    context = await granted(runtime, person.tenant_id)
    await registry.get(EraseTenant.kind).handler(EraseTenant(), context)
    assert context.completed
    assert await left(runtime, person.tenant_id) == [0, 0, 0, 0]
    assert await left(runtime, other.tenant_id) == [1, 1, 1, 0]


async def test_an_attempt_that_lost_its_lease_does_not_delete_the_tenant(
    runtime: Runtime, person: Person
) -> None:
    context = await granted(runtime, person.tenant_id)
    context.attempt = 0
    with pytest.raises(LeaseLost):
        await registry.get(EraseTenant.kind).handler(EraseTenant(), context)
    assert (await left(runtime, person.tenant_id))[0] == 1
