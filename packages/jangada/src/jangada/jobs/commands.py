"""`jangada jobs`: what an operator of the platform does with jobs, over all tenants."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.config import load_settings
from jangada.crud import MAX_LIMIT
from jangada.jobs import service
from jangada.jobs.errors import JobNotFound
from jangada.jobs.models import Job, JobState
from jangada.jobs.schemas import JobFilter
from jangada.runtime import open_runtime

jobs = typer.Typer(help="List, show, cancel and retry jobs of all tenants.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
JobId = Annotated[UUID, typer.Argument(help="The job's id.", metavar="JOB")]

ID_WIDTH = 36
PIPE_WIDTH = 1000

FIELDS = [
    "id",
    "tenant_id",
    "kind",
    "queue",
    "state",
    "priority",
    "attempt",
    "max_attempts",
    "crashes",
    "scheduled_at",
    "started_at",
    "finished_at",
    "cancel_requested_at",
    "progress_done",
    "progress_total",
    "created_at",
    "request_id",
]


def register(app: typer.Typer) -> None:
    app.add_typer(jobs, name="jobs")


@jobs.command("list")
def list_jobs(
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue.")] = None,
    tenant: Annotated[UUID | None, typer.Option(help="Only jobs of this tenant.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = MAX_LIMIT,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    wanted = JobFilter(state=state, kind=kind, queue=queue)

    async def read(session: AsyncSession) -> list[Job]:
        scope = select(Job) if tenant is None else service.visible(tenant)
        order = [column.desc() for column in service.NEWEST_FIRST.columns]
        return list(await session.scalars(wanted(scope).order_by(*order).limit(limit)))

    found = _in_system_scope(read)
    if as_json:
        for job in found:
            _print_json(job)
        return
    _print_table(found)


@jobs.command()
def show(job: JobId, *, as_json: AsJson = False) -> None:
    """Show one job with its arguments, result and errors."""

    async def read(session: AsyncSession) -> Job:
        return await _job(session, job)

    found = _in_system_scope(read)
    if as_json:
        _print_json(found, "args", "result", "errors")
        return
    console = Console()
    for name in (*FIELDS, "args", "result"):
        _print_field(console, name, getattr(found, name), style="bold")
    for error in found.errors:
        _print_field(console, "error", error, style="red")


@jobs.command()
def cancel(job: JobId) -> None:
    """Cancel a job: at once while it waits, within 2 s while it runs."""

    async def act(session: AsyncSession) -> Job:
        return await service.cancel(session, (await _job(session, job)).tenant_id, job)

    found = _in_system_scope(act)
    asked = found.state is JobState.RUNNING
    typer.echo(f"Job {job} {'is asked to stop' if asked else 'is cancelled'}.")


@jobs.command()
def retry(job: JobId) -> None:
    """Run a discarded, cancelled or waiting job now."""

    async def act(session: AsyncSession) -> Job:
        return await service.retry(session, (await _job(session, job)).tenant_id, job)

    _in_system_scope(act)
    typer.echo(f"Job {job} is available.")


def _in_system_scope[T](act: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async def run() -> T:
        async with (
            open_runtime(load_settings(), application_name="jangada-jobs") as runtime,
            runtime.database.system_transaction("jangada jobs") as session,
        ):
            return await act(session)

    return asyncio.run(run())


async def _job(session: AsyncSession, id: UUID) -> Job:
    job = await session.scalar(select(Job).where(Job.id == id))
    if job is None:
        raise JobNotFound(f"There is no job {id}.")
    return job


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value)


def _print_field(console: Console, name: str, value: object, *, style: str) -> None:
    """Data is never markup, and on no terminal's account broken into lines."""
    console.print(Text(name, style=style), Text(_shown(value)), soft_wrap=True)


def _print_json(job: Job, *more: str) -> None:
    row: dict[str, Any] = {name: getattr(job, name) for name in (*FIELDS, *more)}
    typer.echo(orjson.dumps(row).decode())


def _print_table(found: list[Job]) -> None:
    """For a person as wide as the terminal, for a program as wide as it takes."""
    columns = ("kind", "queue", "state", "attempt", "scheduled_at", "finished_at")
    table = Table(box=None, header_style="bold")
    table.add_column("id", min_width=ID_WIDTH)
    for name in columns:
        table.add_column(name)
    for job in found:
        table.add_row(*(Text(_shown(getattr(job, name))) for name in ("id", *columns)))
    console = Console()
    Console(width=None if console.is_terminal else PIPE_WIDTH).print(table)
