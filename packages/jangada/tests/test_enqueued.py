"""What people who write jobs assert about what their code has enqueued."""

from datetime import timedelta
from typing import ClassVar

import pytest
from sqlalchemy import update

from jangada.db import Database, utc_now
from jangada.jobs import service
from jangada.jobs.models import Job, JobState
from jangada.jobs.schemas import JobArgs
from jangada.testing import Person, assert_enqueued, enqueued, make_person, refute_enqueued

pytestmark = pytest.mark.anyio


class Welcome(JobArgs):
    kind: ClassVar[str] = "test.welcome"
    name: str
    after: timedelta = timedelta(0)


class Farewell(JobArgs):
    kind: ClassVar[str] = "test.farewell"


async def test_a_job_is_found_by_its_kind_and_some_of_its_arguments(
    database: Database, person: Person
) -> None:
    """In the transaction that has enqueued it, and later."""
    day = timedelta(days=1)
    async with database.transaction(person.tenant_id) as session:
        tenant = person.tenant_id
        ana = await service.enqueue(session, Welcome(name="Ana", after=day), tenant_id=tenant)
        await service.enqueue(
            session, Welcome(name="Bia"), tenant_id=tenant, scheduled_at=utc_now() + day
        )
        assert (await assert_enqueued(session, Welcome, name="Ana")).id == ana.id
    async with database.read(person.tenant_id) as session:
        assert (await assert_enqueued(session, Welcome, after=day)).id == ana.id
        assert (await assert_enqueued(session, Welcome, name="Bia")).state is JobState.SCHEDULED
        assert len(await enqueued(session, Welcome)) == 2
        assert await enqueued(session, Welcome, name="Ana", after=timedelta(0)) == []
        await refute_enqueued(session, Farewell)
        await refute_enqueued(session, Welcome, name="Cida")


async def test_none_or_several_fail_the_test_and_say_what_there_is(
    database: Database, person: Person
) -> None:
    async with database.transaction(person.tenant_id) as session:
        for _ in range(2):
            await service.enqueue(session, Welcome(name="Ana"), tenant_id=person.tenant_id)
        for args, said in (({"name": "Bia"}, "0 jobs"), ({"name": "Ana"}, "2 jobs")):
            with pytest.raises(pytest.fail.Exception, match=f"{said}.*Ana"):
                await assert_enqueued(session, Welcome, **args)
        with pytest.raises(pytest.fail.Exception, match=r"are enqueued: .*Ana"):
            await refute_enqueued(session, Welcome)


async def test_jobs_that_ended_and_other_tenants_jobs_dont_count(
    database: Database, person: Person
) -> None:
    other = await make_person(database, "Other")
    async with database.transaction(other.tenant_id) as session:
        await service.enqueue(session, Welcome(name="Ana"), tenant_id=other.tenant_id)
    async with database.transaction(person.tenant_id) as session:
        await service.enqueue(session, Welcome(name="Ana"), tenant_id=person.tenant_id)
        assert len(await enqueued(session, Welcome)) == 1
        await session.execute(update(Job).values(state=JobState.COMPLETED))
        assert await enqueued(session, Welcome) == []
