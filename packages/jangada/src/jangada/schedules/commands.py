"""`jangada schedules`: what an operator of the platform does with schedules, over all tenants."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.config import load_settings
from jangada.crud import MAX_LIMIT
from jangada.jobs.commands import AsJson
from jangada.runtime import open_runtime
from jangada.schedules import service
from jangada.schedules.errors import ScheduleNotFound
from jangada.schedules.models import Misfire, Schedule
from jangada.schedules.schemas import ScheduleCreate, ScheduleFilter

schedules = typer.Typer(
    help="List, show, make and change schedules of all tenants.", no_args_is_help=True
)

ScheduleId = Annotated[UUID, typer.Argument(help="The schedule's id.", metavar="SCHEDULE")]

TABLE_WIDTH = 1000
FIELDS = [
    "id",
    "tenant_id",
    "name",
    "cron",
    "timezone",
    "kind",
    "queue",
    "priority",
    "max_attempts",
    "concurrency_key",
    "misfire",
    "paused_at",
    "next_at",
    "last_fired_at",
    "last_job_id",
    "created_at",
    "args",
]
COLUMNS = ("id", "name", "cron", "timezone", "kind", "next_at", "last_fired_at")


def register(app: typer.Typer) -> None:
    app.add_typer(schedules, name="schedules")


@schedules.command("list")
def list_schedules(
    *,
    kind: Annotated[str | None, typer.Option(help="Only schedules of this kind.")] = None,
    paused: Annotated[
        bool | None, typer.Option("--paused/--active", help="Only those that are, or aren't.")
    ] = None,
    tenant: Annotated[UUID | None, typer.Option(help="Only schedules of this tenant.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = MAX_LIMIT,
    as_json: AsJson = False,
) -> None:
    """List schedules, newest first."""
    wanted = ScheduleFilter(kind=kind, is_paused=paused)

    async def read(session: AsyncSession) -> list[Schedule]:
        scope = select(Schedule) if tenant is None else service.visible(tenant)
        order = [column.desc() for column in service.NEWEST_FIRST.columns]
        return list(await session.scalars(wanted(scope).order_by(*order).limit(limit)))

    found = _in_system_scope(read)
    if as_json:
        for schedule in found:
            _print_json(schedule)
        return
    table = Table(*COLUMNS, box=None, header_style="bold")
    for schedule in found:
        table.add_row(*(Text(_shown(schedule, name)) for name in COLUMNS))
    Console(width=TABLE_WIDTH).print(table)


@schedules.command()
def show(schedule: ScheduleId, *, as_json: AsJson = False) -> None:
    """Show one schedule with its arguments."""
    found = _in_system_scope(lambda session: _schedule(session, schedule))
    if as_json:
        _print_json(found)
        return
    console = Console()
    for name in FIELDS:
        console.print(Text(name, style="bold"), Text(_shown(found, name)), soft_wrap=True)


@schedules.command()
def create(  # noqa: PLR0913 - each is a property of the schedule
    name: Annotated[str, typer.Argument(help="Unique in the tenant.")],
    cron: Annotated[str, typer.Argument(help="5 or 6 fields, or @hourly, @daily …")],
    *,
    tenant: Annotated[UUID, typer.Option(help="Whose schedule it is.")],
    kind: Annotated[str, typer.Option(help="The kind of job; some worker knows it.")],
    timezone: Annotated[str, typer.Option(help="Such as America/Sao_Paulo.")] = "UTC",
    args: Annotated[str, typer.Option(help="The job's arguments, a JSON object.")] = "{}",
    priority: Annotated[int, typer.Option(min=1, max=4, help="1 is first.")] = 2,
    concurrency_key: Annotated[str | None, typer.Option(help="Of its jobs.")] = None,
    misfire: Annotated[Misfire, typer.Option(help="What becomes of missed fires.")] = Misfire.ONCE,
    paused: Annotated[bool, typer.Option("--paused", help="Begin paused.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a schedule of any kind that a worker knows."""
    try:
        new = ScheduleCreate(
            name=name,
            cron=cron,
            timezone=timezone,
            kind=kind,
            args=orjson.loads(args),
            priority=priority,
            concurrency_key=concurrency_key,
            misfire=misfire,
            is_paused=paused,
        )
    except (ValidationError, orjson.JSONDecodeError) as error:
        raise typer.BadParameter(str(error)) from error
    made = _in_system_scope(
        lambda session: service.create_schedule(session, tenant, new, is_trusted=True)
    )
    _say(made, f"fires next at {made.next_at.isoformat()}", as_json=as_json)


@schedules.command()
def pause(schedule: ScheduleId, *, as_json: AsJson = False) -> None:
    """Keep a schedule from firing until it is resumed."""

    async def act(session: AsyncSession) -> Schedule:
        found = await _schedule(session, schedule)
        return await service.pause(session, found.tenant_id, schedule)

    _say(_in_system_scope(act), "is paused", as_json=as_json)


@schedules.command()
def resume(schedule: ScheduleId, *, as_json: AsJson = False) -> None:
    """Let a paused schedule fire again, from now on."""

    async def act(session: AsyncSession) -> Schedule:
        found = await _schedule(session, schedule)
        return await service.resume(session, found.tenant_id, schedule)

    found = _in_system_scope(act)
    _say(found, f"fires next at {found.next_at.isoformat()}", as_json=as_json)


@schedules.command()
def run(schedule: ScheduleId, *, as_json: AsJson = False) -> None:
    """Enqueue a schedule's job now; when it fires next stays as it is."""

    async def act(session: AsyncSession) -> Schedule:
        found = await _schedule(session, schedule)
        await service.run(session, found.tenant_id, schedule)
        return found

    found = _in_system_scope(act)
    _say(found, f"has enqueued job {found.last_job_id}", as_json=as_json)


@schedules.command()
def delete(schedule: ScheduleId) -> None:
    """Delete a schedule; the jobs that it has enqueued stay."""

    async def act(session: AsyncSession) -> None:
        found = await _schedule(session, schedule)
        await service.delete_schedule(session, found.tenant_id, schedule)

    _in_system_scope(act)
    typer.echo(f"Schedule {schedule} is deleted.")


def _in_system_scope[T](act: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async def run() -> T:
        async with (
            open_runtime(load_settings(), application_name="jangada-schedules") as runtime,
            runtime.database.system_transaction("jangada schedules") as session,
        ):
            return await act(session)

    return asyncio.run(run())


async def _schedule(session: AsyncSession, id: UUID) -> Schedule:
    schedule = await session.scalar(select(Schedule).where(Schedule.id == id))
    if schedule is None:
        raise ScheduleNotFound(f"There is no schedule {id}.")
    return schedule


def _say(schedule: Schedule, what: str, *, as_json: bool) -> None:
    if as_json:
        _print_json(schedule)
    else:
        typer.echo(f"Schedule {schedule.id} {what}.")


def _shown(schedule: Schedule, name: str) -> str:
    value = getattr(schedule, name)
    if name == "next_at" and schedule.is_paused:
        return "paused"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return orjson.dumps(value).decode() if isinstance(value, dict) else str(value)


def _print_json(schedule: Schedule) -> None:
    row: dict[str, Any] = {name: getattr(schedule, name) for name in FIELDS}
    typer.echo(orjson.dumps(row).decode())
