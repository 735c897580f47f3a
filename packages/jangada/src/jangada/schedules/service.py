"""Verbs on schedules. Each runs in the caller's tenant session and takes effect with its commit."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from jangada import crud
from jangada.crud import Page, PageRequest, Sort
from jangada.errors import FieldError
from jangada.jobs import payloads
from jangada.jobs.models import Job, JobKind
from jangada.jobs.schemas import JobArgs
from jangada.schedules.errors import (
    InvalidCron,
    KindNotSchedulable,
    ScheduleExists,
    ScheduleNotFound,
    TooManySchedules,
    UnknownTimezone,
)
from jangada.schedules.firing import clock, enqueue_fire
from jangada.schedules.models import Misfire, Schedule, is_active
from jangada.schedules.schemas import ScheduleCreate, ScheduleFilter, SchedulePatch
from jangada_queue.cron import Cron, UnknownZone, UnreadableCron

NEWEST_FIRST: Final = Sort((Schedule.id,), descending=True)


def visible(tenant_id: UUID) -> Select[Schedule]:
    return select(Schedule).where(Schedule.tenant_id == tenant_id)


async def get_schedule(session: AsyncSession, tenant_id: UUID, id: UUID) -> Schedule:
    return await crud.fetch(session, visible(tenant_id), id, missing=ScheduleNotFound)


async def list_schedules(
    session: AsyncSession, tenant_id: UUID, filter: ScheduleFilter, page: PageRequest
) -> Page[Schedule]:
    """The tenant's schedules, newest first."""
    bound_to = {"tenant": str(tenant_id), **filter.model_dump(mode="json")}
    scope = filter(visible(tenant_id))
    return await crud.paginate(session, scope, page, sort=NEWEST_FIRST, bound_to=bound_to)


async def create_schedule(
    session: AsyncSession,
    tenant_id: UUID,
    new: ScheduleCreate,
    *,
    by: UUID | None = None,
    most: int | None = None,
    is_trusted: bool = False,
) -> Schedule:
    """A schedule as a user writes it: of a kind that workers know and its author lets them have.

    `most` is how many the tenant may have; `is_trusted` lets an operator schedule any known kind.
    Raises `KindNotSchedulable`, `TooManySchedules`, `ScheduleExists`, `InvalidCron`,
    `UnknownTimezone`, and what arguments and keys of jobs can be refused for.
    """
    kind = await _schedulable(session, new.kind, is_trusted=is_trusted)
    if most is not None:
        await _refuse_more(session, tenant_id, most)
    now = await clock(session)
    schedule = Schedule(
        tenant_id=tenant_id,
        kind=new.kind,
        queue=kind.queue,
        max_attempts=kind.max_attempts,
        created_by=by,
        paused_at=now if new.is_paused else None,
    )
    values = new.model_dump(exclude={"kind", "is_paused"})
    return await _save(session, schedule, values, now)


async def put_schedule(  # noqa: PLR0913 - each is a property of the schedule
    session: AsyncSession,
    args: JobArgs,
    *,
    tenant_id: UUID,
    name: str,
    cron: str,
    timezone: str = "UTC",
    misfire: Misfire = Misfire.ONCE,
    priority: int = 2,
    queue: str | None = None,
) -> Schedule:
    """The tenant's schedule of this name, as code declares it: made, changed or left as it is.

    May be called any number of times, at each start of a program for example. Whether it is paused
    and when it fired stay as they are; the next fire does unless expression or zone change. Raises
    `InvalidCron` and `UnknownTimezone`, and what `jobs.service.enqueue` does.
    """
    values = {
        "name": name,
        "cron": cron,
        "timezone": timezone,
        "args": payloads.encode_args(args),
        "priority": priority,
        "concurrency_key": payloads.concurrency_key(args),
        "misfire": misfire,
    }
    scope = visible(tenant_id).where(Schedule.name == name).with_for_update()
    schedule = await session.scalar(scope) or Schedule(tenant_id=tenant_id)
    schedule.kind, schedule.queue = args.kind, queue or args.queue
    schedule.max_attempts = args.max_attempts
    return await _save(session, schedule, values, await clock(session))


async def update_schedule(
    session: AsyncSession, tenant_id: UUID, id: UUID, changes: SchedulePatch
) -> Schedule:
    """Change what was sent; a new expression or zone counts from now on. Raises as `create`."""
    schedule = await _locked(session, tenant_id, id)
    sent = changes.model_dump(include=changes.model_fields_set)
    return await _save(session, schedule, sent, await clock(session))


async def delete_schedule(session: AsyncSession, tenant_id: UUID, id: UUID) -> None:
    """Jobs that it has enqueued stay."""
    await session.delete(await _locked(session, tenant_id, id))


async def pause(session: AsyncSession, tenant_id: UUID, id: UUID) -> Schedule:
    """Nothing fires until `resume`. Idempotent."""
    schedule = await _locked(session, tenant_id, id)
    schedule.paused_at = schedule.paused_at or await clock(session)
    await session.flush()
    return schedule


async def resume(session: AsyncSession, tenant_id: UUID, id: UUID) -> Schedule:
    """Fire again from now on: what fell into the pause was not missed. Idempotent."""
    schedule = await _locked(session, tenant_id, id)
    if schedule.is_paused:
        schedule.paused_at = None
        schedule.next_at = _next_fire(schedule, await clock(session))
        await session.flush()
    return schedule


async def run(session: AsyncSession, tenant_id: UUID, id: UUID) -> Job:
    """Enqueue its job now, also while it is paused; when it fires next stays as it is."""
    schedule = await _locked(session, tenant_id, id)
    return await enqueue_fire(session, schedule, await clock(session))


async def pause_all(session: AsyncSession, tenant_id: UUID) -> None:
    """Nothing of the tenant fires any more."""
    statement = update(Schedule).where(Schedule.tenant_id == tenant_id, is_active())
    await session.execute(statement.values(paused_at=func.clock_timestamp()))


async def _schedulable(session: AsyncSession, kind: str, *, is_trusted: bool) -> JobKind:
    known = await session.get(JobKind, kind)
    if known is None or not (known.is_schedulable or is_trusted):
        detail = f"Jobs of kind {kind!r} cannot be scheduled here."
        fault = FieldError("/kind", KindNotSchedulable.code, detail)
        raise KindNotSchedulable(detail, errors=[fault])
    return known


async def _refuse_more(session: AsyncSession, tenant_id: UUID, most: int) -> None:
    """Two that come at once are counted one after the other."""
    await session.execute(
        select(
            func.pg_advisory_xact_lock(
                func.hashtext("jangada.schedules"), func.hashtext(str(tenant_id))
            )
        )
    )
    count = await session.scalar(
        select(func.count()).select_from(visible(tenant_id).limit(most).subquery())
    )
    if count is not None and count >= most:
        raise TooManySchedules(f"At most {most} schedules are allowed; delete one first.")


async def _locked(session: AsyncSession, tenant_id: UUID, id: UUID) -> Schedule:
    """The row as it is now, which nothing fires meanwhile."""
    scope = visible(tenant_id).with_for_update().execution_options(populate_existing=True)
    return await crud.fetch(session, scope, id, missing=ScheduleNotFound)


async def _save(
    session: AsyncSession, schedule: Schedule, values: Mapping[str, Any], now: datetime
) -> Schedule:
    """Write the values; in a savepoint, so that a refusal leaves the caller's transaction whole."""
    before = (schedule.cron, schedule.timezone)
    if "args" in values:
        payloads.check_args(schedule.kind, values["args"])
    payloads.check_key(values.get("concurrency_key"))
    try:
        async with session.begin_nested():
            for name, value in values.items():
                setattr(schedule, name, value)
            if before != (schedule.cron, schedule.timezone):
                schedule.next_at = _next_fire(schedule, now)
            session.add(schedule)
    except IntegrityError as error:
        detail = f"There is a schedule {values.get('name')!r} already."
        fault = FieldError("/name", ScheduleExists.code, detail)
        raise ScheduleExists(detail, errors=[fault]) from error
    return schedule


def _next_fire(schedule: Schedule, now: datetime) -> datetime:
    try:
        return Cron.parse(schedule.cron, schedule.timezone).next(now)
    except UnknownZone as error:
        fault = FieldError("/timezone", UnknownTimezone.code, str(error))
        raise UnknownTimezone(str(error), errors=[fault]) from error
    except UnreadableCron as error:
        fault = FieldError("/cron", InvalidCron.code, str(error))
        raise InvalidCron(str(error), errors=[fault]) from error
