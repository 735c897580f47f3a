"""Unique jobs, alone, in batches and against other transactions."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.db import Database
from jangada.jobs import service
from jangada.jobs.models import UNFINISHED_STATES, Job, JobState, JobUniqueKey
from jangada.jobs.schemas import JobArgs, NewJob, Unique
from jangada.testing import Person, eventually, make_person

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)
LIKE = Unique()


class Report(JobArgs):
    kind: ClassVar[str] = "test.report"
    month: str = "2026-03"
    note: str = ""


class Nightly(JobArgs):
    kind: ClassVar[str] = "test.nightly"
    unique: ClassVar[Unique | None] = Unique(states=UNFINISHED_STATES)


type Enqueue = Callable[..., Coroutine[Any, Any, Job]]


@pytest.fixture
def enqueue(database: Database, person: Person) -> Enqueue:
    async def enqueue(
        args: JobArgs | None = None,
        unique: Unique | None = LIKE,
        **options: Any,  # noqa: ANN401 - as enqueue has them
    ) -> Job:
        tenant = options.pop("tenant_id", person.tenant_id)
        async with database.transaction(tenant) as session:
            return await service.enqueue(
                session, args or Report(), tenant_id=tenant, unique=unique, **options
            )

    return enqueue


async def change(database: Database, job: Job, **values: object) -> None:
    async with database.transaction(job.tenant_id) as session:
        await session.execute(update(Job).where(Job.id == job.id).values(**values))


async def count(database: Database, person: Person) -> int:
    async with database.read(person.tenant_id) as session:
        return (await session.execute(select(func.count()).select_from(Job))).scalar_one()


async def test_the_second_is_the_first_and_says_so(
    database: Database, person: Person, enqueue: Enqueue
) -> None:
    first, second = await enqueue(), await enqueue(priority=1)
    assert (first.is_duplicate, second.is_duplicate) == (False, True)
    assert (second.id, second.priority) == (first.id, 2)
    assert first.unique_key is not None
    assert await count(database, person) == 1


async def test_a_job_without_a_key_is_never_a_duplicate(
    database: Database, person: Person, enqueue: Enqueue
) -> None:
    """And leaves nothing behind in the table of keys."""
    jobs = [await enqueue(unique=None) for _ in range(2)]
    assert [job.is_duplicate for job in jobs] == [False, False]
    assert [job.unique_key for job in jobs] == [None, None]
    async with database.read(person.tenant_id) as session:
        assert (await session.scalars(select(JobUniqueKey))).all() == []


@pytest.mark.parametrize(
    ("unique", "args", "options", "is_duplicate"),
    [
        (Unique(), Report(note="x"), {}, False),
        (Unique(), Report(), {"queue": "other"}, True),
        (Unique(by_args=["month"]), Report(note="x"), {}, True),
        (Unique(by_args=["month"]), Report(month="2026-04"), {}, False),
        (Unique(by_args=False), Report(month="2026-04"), {}, True),
        (Unique(by_queue=True), Report(), {"queue": "other"}, False),
        (Unique(by_queue=True), Report(), {"queue": "default"}, True),
    ],
)
async def test_what_makes_jobs_alike_is_chosen(
    enqueue: Enqueue, unique: Unique, args: JobArgs, options: dict[str, Any], *, is_duplicate: bool
) -> None:
    await enqueue(Report(), unique)
    assert (await enqueue(args, unique, **options)).is_duplicate is is_duplicate


async def test_jobs_of_other_kinds_and_tenants_are_never_alike(
    database: Database, enqueue: Enqueue
) -> None:
    class Other(Report):
        kind: ClassVar[str] = "test.other-report"

    await enqueue()
    other = await make_person(database, "Other")
    assert not (await enqueue(Other())).is_duplicate
    assert not (await enqueue(tenant_id=other.tenant_id)).is_duplicate


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("states", [Unique().states, UNFINISHED_STATES, frozenset(JobState)])
async def test_a_job_counts_in_the_chosen_states(
    database: Database, enqueue: Enqueue, state: JobState, states: frozenset[JobState]
) -> None:
    unique = Unique(states=states)
    first = await enqueue(unique=unique)
    await change(database, first, state=state)
    second, third = await enqueue(unique=unique), await enqueue(unique=unique)
    assert second.is_duplicate is (state in states)
    assert third.id == second.id


def test_by_default_a_job_counts_until_it_has_failed_or_was_cancelled() -> None:
    assert frozenset(JobState) - Unique().states == {JobState.DISCARDED, JobState.CANCELLED}


async def test_a_kind_can_be_unique_by_itself(database: Database, enqueue: Enqueue) -> None:
    first = await enqueue(Nightly(), None)
    assert (await enqueue(Nightly(), None)).is_duplicate
    await change(database, first, state=JobState.COMPLETED)
    assert not (await enqueue(Nightly(), None)).is_duplicate


async def test_with_a_period_a_job_counts_for_so_long_after_it_was_enqueued(
    database: Database, person: Person, enqueue: Enqueue
) -> None:
    """Whatever state it is in, and however often it was asked for."""
    unique = Unique(period=10 * MINUTE)
    first = await enqueue(unique=unique)
    await age(database, person, 9 * MINUTE)
    assert (await enqueue(unique=unique)).id == first.id
    await age(database, person, 2 * MINUTE)
    second = await enqueue(unique=unique)
    assert second.id != first.id
    await age(database, person, 9 * MINUTE)
    assert (await enqueue(unique=unique)).id == second.id


async def age(database: Database, person: Person, by: timedelta) -> None:
    async with database.transaction(person.tenant_id) as session:
        await session.execute(
            text("UPDATE job_unique_keys SET taken_at = taken_at - CAST(:by AS interval)"),
            {"by": by},
        )


async def test_a_key_whose_job_is_gone_is_free(
    database: Database, person: Person, enqueue: Enqueue
) -> None:
    first = await enqueue()
    async with database.transaction(person.tenant_id) as session:
        await session.delete(await service.get_job(session, person.tenant_id, first.id))
    second = await enqueue()
    assert not second.is_duplicate
    assert (await enqueue()).id == second.id


@pytest.mark.parametrize(
    "wrong",
    [
        {"by_args": "month"},
        {"period": timedelta(0)},
        {"states": frozenset({JobState.RUNNING, JobState.SCHEDULED})},
    ],
)
def test_what_makes_no_sense_is_an_error_where_it_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Unique(**wrong)


async def test_an_argument_that_there_is_not_is_named(enqueue: Enqueue) -> None:
    with pytest.raises(ValueError, match=r"test.report has no argument week to be unique by"):
        await enqueue(unique=Unique(by_args=["week"]))


async def test_in_a_batch_the_first_of_a_kind_is_inserted(
    database: Database, person: Person, enqueue: Enqueue
) -> None:
    before = await enqueue(Report(month="2026-01"))
    jobs: list[JobArgs | NewJob] = [
        NewJob(Report(month="2026-01"), unique=LIKE),
        NewJob(Report(month="2026-02"), unique=LIKE),
        Report(month="2026-02"),
        NewJob(Report(month="2026-02"), unique=LIKE),
        Nightly(),
        Nightly(),
    ]
    async with database.transaction(person.tenant_id) as session:
        ids = await service.enqueue_many(session, jobs, tenant_id=person.tenant_id)
    assert ids[0] == before.id
    assert ids[3] == ids[1]
    assert ids[5] == ids[4]
    assert len(set(ids)) == 4
    assert await count(database, person) == 4
    assert (await enqueue(Report(month="2026-02"))).id == ids[1]


type Act = Callable[[AsyncSession], Awaitable[UUID]]


async def waits_for_a_lock(database: Database) -> bool:
    async with database.system_transaction("test") as session:
        waiting = await session.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()"
            )
        )
        return bool(waiting.scalar_one())


async def race(database: Database, person: Person, first: Act, second: Act) -> tuple[UUID, UUID]:
    """Both verbs in concurrent transactions: the second begins before the first has committed."""

    async def late() -> UUID:
        async with database.transaction(person.tenant_id) as session:
            return await second(session)

    async with database.transaction(person.tenant_id) as session:
        one = await first(session)
        racing = asyncio.create_task(late())
        await eventually(lambda: waits_for_a_lock(database))
    return one, await racing


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize("before", [None, JobState.DISCARDED])
async def test_of_two_transactions_at_once_one_makes_the_job(
    database: Database,
    person: Person,
    enqueue: Enqueue,
    before: JobState | None,
    *,
    is_batch: bool,
) -> None:
    """Where nobody had the key, and where both take it over from a job that counts no more."""
    if before is not None:
        await change(database, await enqueue(), state=before)

    async def act(session: AsyncSession) -> UUID:
        if is_batch:
            new = [NewJob(Report(), unique=LIKE)]
            return (await service.enqueue_many(session, new, tenant_id=person.tenant_id))[0]
        made = await service.enqueue(session, Report(), tenant_id=person.tenant_id, unique=LIKE)
        return made.id

    one, two = await race(database, person, act, act)
    assert one == two
    assert await count(database, person) == (1 if before is None else 2)


@pytest.mark.parametrize("before", [None, JobState.CANCELLED])
async def test_whoever_waited_makes_the_job_when_the_other_rolls_back(
    database: Database, person: Person, enqueue: Enqueue, before: JobState | None
) -> None:
    if before is not None:
        await change(database, await enqueue(), state=before)
    racing: asyncio.Task[Job] | None = None
    with pytest.raises(ZeroDivisionError):
        async with database.transaction(person.tenant_id) as session:
            lost = await service.enqueue(session, Report(), tenant_id=person.tenant_id, unique=LIKE)
            racing = asyncio.create_task(enqueue())
            await eventually(lambda: waits_for_a_lock(database))
            raise ZeroDivisionError
    assert racing is not None
    made = await racing
    assert not made.is_duplicate
    assert made.id != lost.id
    assert (await enqueue()).id == made.id


async def test_many_at_once_make_one_job(
    database: Database, person: Person, enqueue: Enqueue
) -> None:
    jobs = await asyncio.gather(*(enqueue() for _ in range(20)))
    assert len({job.id for job in jobs}) == 1
    assert sorted(job.is_duplicate for job in jobs) == [False] + [True] * 19
    assert await count(database, person) == 1


async def test_batches_with_the_same_keys_wait_for_each_other(
    database: Database, person: Person
) -> None:
    """In whatever order they name them: nobody is ended for a deadlock."""
    months = [f"{year}-{month:02}" for year in range(2000, 2020) for month in range(1, 13)]

    async def batch(months: list[str]) -> list[UUID]:
        new = [NewJob(Report(month=month), unique=LIKE) for month in months]
        async with database.transaction(person.tenant_id) as session:
            return await service.enqueue_many(session, new, tenant_id=person.tenant_id)

    orders = [months, months[::-1]] * 4
    found = await asyncio.gather(*(batch(order) for order in orders))
    assert len({frozenset(ids) for ids in found}) == 1
    assert await count(database, person) == len(months)


async def test_a_duplicate_waits_for_nobody(
    database: Database, person: Person, enqueue: Enqueue
) -> None:
    """A transaction that was answered a job that is there locks nothing."""
    first = await enqueue()
    async with database.transaction(person.tenant_id) as session:
        again = await service.enqueue(session, Report(), tenant_id=person.tenant_id, unique=LIKE)
        assert again.id == first.id
        assert (await enqueue()).id == first.id
