"""Discarded jobs start again: some at a time, so that no transaction gets long.

Doing it twice does no harm: what was redriven isn't discarded any more. What fails again meanwhile
is: so a redrive takes only jobs that were discarded before it began, or it might never end.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Select, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.commits import notice
from jangada.jobs.models import Job, JobState
from jangada.jobs.schemas import JobFilter

REDRIVEN_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Redriven:
    """What one transaction did.

    To go on, call again with this `until` and `last`.
    """

    jobs: int
    has_more: bool
    until: datetime
    last: tuple[UUID, UUID] | None


def dead_letters(
    wanted: JobFilter, *, tenant_id: UUID | None, until: datetime, after: tuple[UUID, UUID] | None
) -> Select[Job]:
    """Discarded jobs that ended before `until`; without a tenant those of all, in system scope."""
    narrowed = wanted.model_copy(update={"state": JobState.DISCARDED, "until": until})
    scope = narrowed(select(Job))
    if tenant_id is not None:
        scope = scope.where(Job.tenant_id == tenant_id)
    if after is not None:
        scope = scope.where(tuple_(Job.tenant_id, Job.id) > tuple_(*after))
    return scope


async def count_dead_letters(
    session: AsyncSession, wanted: JobFilter, *, tenant_id: UUID | None
) -> tuple[int, datetime]:
    """How many jobs a redrive that begins now would take, and the `until` to begin it with."""
    until = await _bounded(session, wanted)
    scope = dead_letters(wanted, tenant_id=tenant_id, until=until, after=None)
    return (await session.execute(scope.with_only_columns(func.count()))).scalar_one(), until


async def _bounded(session: AsyncSession, wanted: JobFilter) -> datetime:
    """The end of what the filter wants; never in the future."""
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now if wanted.until is None else min(now, wanted.until)


async def redrive(
    session: AsyncSession,
    wanted: JobFilter,
    *,
    tenant_id: UUID | None,
    limit: int = REDRIVEN_AT_ONCE,
    after: tuple[UUID, UUID] | None = None,
) -> Redriven:
    """Make discarded jobs available, at most so many; each gets at least one more attempt.

    As `retry` does it for one. Without a tenant, in system scope, those of all tenants.
    """
    until = await _bounded(session, wanted)
    scope = dead_letters(wanted, tenant_id=tenant_id, until=until, after=after)
    chosen = (
        scope.with_only_columns(Job.tenant_id, Job.id)
        .order_by(Job.tenant_id, Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )
    statement = (
        update(Job)
        .where(Job.tenant_id == chosen.c.tenant_id, Job.id == chosen.c.id)
        .values(
            state=JobState.AVAILABLE,
            scheduled_at=func.clock_timestamp(),
            finished_at=None,
            cancel_requested_at=None,
            crashes=0,
            max_attempts=func.greatest(Job.max_attempts, Job.attempt + 1),
            revision=Job.revision + 1,
            updated_at=func.clock_timestamp(),
        )
        .returning(Job.queue, Job.tenant_id, Job.id)
        .execution_options(synchronize_session=False)
    )
    rows = (await session.execute(statement)).all()
    for queue in {queue for queue, _, _ in rows}:
        notice(session, "wake", queue)
    last = max(((tenant, id_) for _, tenant, id_ in rows), default=after)
    left = dead_letters(wanted, tenant_id=tenant_id, until=until, after=last)
    has_more = len(rows) == limit and await session.scalar(select(left.exists()))
    return Redriven(len(rows), bool(has_more), until, last)
