"""Fires: each enqueues one job, whoever and however many look; what was missed goes by policy."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from jangada.db import Database
from jangada.jobs.models import Job
from jangada.jobs.schemas import JobArgs
from jangada.schedules import service
from jangada.schedules.firing import fire_due, plan_fires
from jangada.schedules.models import Misfire, Schedule
from jangada.testing import Person
from jangada_queue.cron import Cron

pytestmark = pytest.mark.anyio

GRACE = timedelta(minutes=1)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOURLY = Cron.parse("@hourly", "UTC")


class Report(JobArgs):
    kind: ClassVar[str] = "test.report"
    queue: ClassVar[str] = "reports"
    max_attempts: ClassVar[int] = 3
    city: str = "Recife"


type Make = Callable[..., Awaitable[Schedule]]


@pytest.fixture
def make(database: Database, person: Person) -> Make:
    async def make(name: str = "a schedule", cron: str = "@yearly", **how: Any) -> Schedule:  # noqa: ANN401 - as put_schedule has it
        async with database.transaction(person.tenant_id) as session:
            return await service.put_schedule(
                session, Report(), tenant_id=person.tenant_id, name=name, cron=cron, **how
            )

    return make


async def make_due(database: Database, schedule: Schedule, ago: timedelta) -> datetime:
    """As if the next fire had been so long ago."""
    due = func.clock_timestamp() - ago
    async with database.transaction(schedule.tenant_id) as session:
        chosen = update(Schedule).where(Schedule.id == schedule.id).values(next_at=due)
        found: datetime | None = await session.scalar(chosen.returning(Schedule.next_at))
    assert found is not None
    return found


async def jobs_of(database: Database, schedule: Schedule) -> list[Job]:
    async with database.read(schedule.tenant_id) as session:
        return list(await session.scalars(select(Job).where(Job.kind == schedule.kind)))


async def reload(database: Database, schedule: Schedule) -> Schedule:
    async with database.read(schedule.tenant_id) as session:
        return await service.get_schedule(session, schedule.tenant_id, schedule.id)


async def test_a_fire_enqueues_the_job_as_it_was_declared(database: Database, make: Make) -> None:
    schedule = await make(priority=1)
    due = await make_due(database, schedule, timedelta(seconds=2))
    fired = await fire_due(database, grace=GRACE)
    assert fired.jobs == 1
    (job,) = await jobs_of(database, schedule)
    assert (job.kind, job.queue, job.max_attempts, job.priority) == ("test.report", "reports", 3, 1)
    assert job.args == {"city": "Recife"}
    assert job.metadata_ == {"schedule": {"id": str(schedule.id), "fire_at": due.isoformat()}}
    now = await reload(database, schedule)
    assert (now.last_fired_at, now.last_job_id) == (due, job.id)
    assert now.next_at > due
    assert fired.until_next is not None
    assert timedelta(0) < fired.until_next < timedelta(days=367)


async def test_nothing_fires_before_its_time_or_in_a_pause(database: Database, make: Make) -> None:
    assert (await fire_due(database, grace=GRACE)).until_next is None
    await make()
    paused = await make("paused")
    await make_due(database, paused, timedelta(seconds=1))
    async with database.transaction(paused.tenant_id) as session:
        await service.pause(session, paused.tenant_id, paused.id)
    assert (await fire_due(database, grace=GRACE)).jobs == 0


async def test_dispatchers_together_fire_each_schedule_once(database: Database, make: Make) -> None:
    schedules = [await make(f"number {number}") for number in range(12)]
    for schedule in schedules:
        await make_due(database, schedule, timedelta(seconds=1))
    fired = await asyncio.gather(*(fire_due(database, grace=GRACE) for _ in range(8)))
    assert sum(each.jobs for each in fired) == 12
    jobs = await jobs_of(database, schedules[0])
    fires = {job.metadata_["schedule"]["id"] for job in jobs}
    assert (len(jobs), len(fires)) == (12, 12)


async def test_a_fire_that_breaks_off_is_no_fire(database: Database, make: Make) -> None:
    """Job and next fire are one transaction: after a crash both or neither are there."""
    schedule = await make()
    due = await make_due(database, schedule, timedelta(seconds=1))
    with pytest.raises(ConnectionError):
        async with database.transaction(schedule.tenant_id) as session:
            found = await service.get_schedule(session, schedule.tenant_id, schedule.id)
            await service.run(session, found.tenant_id, found.id)
            raise ConnectionError
    assert await jobs_of(database, schedule) == []
    assert (await reload(database, schedule)).next_at == due
    assert (await fire_due(database, grace=GRACE)).jobs == 1


@pytest.mark.parametrize(("misfire", "count"), [(Misfire.SKIP, 0), (Misfire.ONCE, 1)])
async def test_what_was_missed_goes_by_policy(
    database: Database, make: Make, misfire: Misfire, count: int
) -> None:
    schedule = await make(misfire=misfire)
    await make_due(database, schedule, timedelta(days=3))
    assert (await fire_due(database, grace=GRACE)).jobs == count
    assert (await fire_due(database, grace=GRACE)).jobs == 0
    assert (await reload(database, schedule)).next_at > datetime.now(UTC)


async def test_a_schedule_that_cannot_be_read_any_more_stops_no_other(
    database: Database, make: Make
) -> None:
    unreadable, sound = await make("unreadable"), await make("sound")
    async with database.transaction(sound.tenant_id) as session:
        changed = update(Schedule).where(Schedule.id == unreadable.id)
        await session.execute(changed.values(timezone="Europe/Atlantis"))
    await make_due(database, unreadable, timedelta(seconds=2))
    await make_due(database, sound, timedelta(seconds=1))
    assert (await fire_due(database, grace=GRACE)).jobs == 1
    assert (await reload(database, unreadable)).is_paused


def planned(
    next_at: datetime, now: datetime, misfire: Misfire = Misfire.ONCE, cron: Cron = HOURLY
) -> tuple[list[datetime], datetime]:
    plan = plan_fires(cron, next_at, now, misfire=misfire, grace=GRACE)
    return plan.fires, plan.next_at


SECONDS = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def test_a_fire_in_time_is_fired_under_either_policy() -> None:
    for misfire in Misfire:
        assert planned(NOON, NOON + 3 * SECONDS, misfire) == ([NOON], NOON + HOUR)


def test_each_fire_that_fell_into_the_grace_is_fired() -> None:
    cron = Cron.parse("*/10 * * * * *", "UTC")
    fires, next_at = planned(NOON, NOON + 25 * SECONDS, Misfire.SKIP, cron)
    assert fires == [NOON, NOON + 10 * SECONDS, NOON + 20 * SECONDS]
    assert next_at == NOON + 30 * SECONDS


def test_what_was_missed_is_made_up_for_by_one_job() -> None:
    assert planned(NOON, NOON + 5 * HOUR + 600 * SECONDS) == ([NOON], NOON + 6 * HOUR)
    late = NOON + 5 * HOUR + 600 * SECONDS
    assert planned(NOON, late, Misfire.SKIP) == ([], NOON + 6 * HOUR)


def test_a_fire_that_is_in_time_makes_up_for_those_that_were_missed() -> None:
    at = NOON + 5 * HOUR
    assert planned(NOON, at + SECONDS) == ([at], at + HOUR)


@given(
    st.sampled_from(["*/7 * * * * *", "* * * * *", "*/15 * * * *", "@hourly", "30 2 * * *"]),
    st.sampled_from(list(Misfire)),
    st.integers(0, 200_000),
)
def test_every_plan_leads_past_the_present(expression: str, misfire: Misfire, late: int) -> None:
    cron = Cron.parse(expression, "Europe/Berlin")
    next_at = cron.next(NOON)
    now = next_at + late * SECONDS
    plan = plan_fires(cron, next_at, now, misfire=misfire, grace=GRACE)
    assert plan.next_at > now
    assert plan.next_at == cron.next(now)
    assert all(at <= now for at in plan.fires)
    assert plan.fires == sorted(set(plan.fires))
    in_time = [at for at in plan.fires if at >= now - GRACE]
    assert plan.fires == in_time or (plan.fires == [next_at] and misfire is Misfire.ONCE)
