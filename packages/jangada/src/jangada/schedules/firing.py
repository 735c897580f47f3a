"""Fires what is due: the job and the step to the next fire are one transaction.

The lock of the schedule's row is held for it. A fire that comes up to the grace late, through the
failover of a dispatcher for example, is fired as if it were in time, and so is each one that fell
into it. What is older was missed: by its policy a schedule skips it, or makes up for it by one job.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.db import Database, new_id
from jangada.jobs import service as jobs
from jangada.jobs.delivery.connection import LONGEST_IDLE
from jangada.jobs.models import Job, JobState
from jangada.schedules.models import Misfire, Schedule, is_active
from jangada.scopes import milliseconds
from jangada.telemetry import get_logger
from jangada_queue.cron import Cron, UnknownZone, UnreadableCron

log = get_logger(__name__)

_IDLE_TIMEOUT: Final = "idle_in_transaction_session_timeout"

FIRED_AT_ONCE: Final = 100
"""Schedules that one transaction fires."""


@dataclass(frozen=True, slots=True)
class Fired:
    """How many jobs were enqueued, and how long it is until the next fire (None without one)."""

    jobs: int
    until_next: timedelta | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Which fires enqueue a job now, and when the next one is."""

    fires: list[datetime]
    next_at: datetime


async def fire_due(database: Database, *, grace: timedelta) -> Fired:
    """Enqueue the jobs of all fires that are due; schedules that a rival fires are left to it."""
    async with database.system_transaction("schedules") as session:
        # A dispatcher that freezes here would keep the schedules that it has locked.
        await session.execute(
            select(func.set_config(_IDLE_TIMEOUT, milliseconds(LONGEST_IDLE), True))
        )
        now = await clock(session)
        due = await session.scalars(
            select(Schedule)
            .where(is_active(), Schedule.next_at <= now)
            .order_by(Schedule.next_at)
            .limit(FIRED_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        count = 0
        for schedule in due.all():
            count += await _fire(session, schedule, now, grace)
        next_at = await session.scalar(select(func.min(Schedule.next_at)).where(is_active()))
        until_next = None if next_at is None else next_at - await clock(session)
    return Fired(count, until_next)


async def clock(session: AsyncSession) -> datetime:
    """PostgreSQL's clock: no other one fires anything."""
    now: datetime | None = await session.scalar(select(func.clock_timestamp()))
    assert now is not None  # noqa: S101 - a clock always answers
    return now


async def enqueue_fire(session: AsyncSession, schedule: Schedule, at: datetime) -> Job:
    """The schedule's job, for this fire; the schedule remembers both."""
    job = Job(
        tenant_id=schedule.tenant_id,
        id=new_id(),
        kind=schedule.kind,
        queue=schedule.queue,
        state=JobState.AVAILABLE,
        priority=schedule.priority,
        args=schedule.args,
        max_attempts=schedule.max_attempts,
        concurrency_key=schedule.concurrency_key,
        metadata_={"schedule": {"id": str(schedule.id), "fire_at": at.isoformat()}},
        created_by=schedule.created_by,
    )
    schedule.last_fired_at, schedule.last_job_id = at, job.id
    return await jobs.insert(session, job)


async def _fire(session: AsyncSession, schedule: Schedule, now: datetime, grace: timedelta) -> int:
    try:
        cron = Cron.parse(schedule.cron, schedule.timezone)
        plan = plan_fires(cron, schedule.next_at, now, misfire=schedule.misfire, grace=grace)
    except (UnknownZone, UnreadableCron) as error:
        # It could be read when it was written: since then its time zone has gone, for example.
        schedule.paused_at = now
        log.warning("unreadable schedule is paused", schedule=str(schedule.id), why=str(error))
        return 0
    for at in plan.fires:
        await enqueue_fire(session, schedule, at)
    schedule.next_at = plan.next_at
    return len(plan.fires)


def plan_fires(
    cron: Cron, next_at: datetime, now: datetime, *, misfire: Misfire, grace: timedelta
) -> Plan:
    """What to do about a schedule whose next fire is due."""
    oldest = now - grace
    is_missed = next_at < oldest
    at = cron.next(oldest) if is_missed else next_at
    fires = []
    while at <= now:
        fires.append(at)
        at = cron.next(at)
    if is_missed and not fires and misfire is Misfire.ONCE:
        fires = [next_at]
    return Plan(fires, at)
