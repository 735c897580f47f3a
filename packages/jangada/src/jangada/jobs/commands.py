"""`jangada jobs`: what an operator of the platform does with jobs, over all tenants."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import orjson
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.config import load_settings
from jangada.crud import MAX_LIMIT
from jangada.db import utc_now
from jangada.environment import Duration
from jangada.jobs import dead_letters, service
from jangada.jobs.errors import JobNotFound
from jangada.jobs.models import Job, JobState
from jangada.jobs.schemas import JobFilter
from jangada.runtime import open_runtime
from jangada.tenants.models import Tenant

jobs = typer.Typer(
    help="List, show, cancel, retry and redrive jobs of all tenants.", no_args_is_help=True
)


def _moment(text: str) -> datetime:
    """`2h` ago, or an ISO 8601 time; without a zone it is in UTC."""
    with suppress(ValidationError):
        return utc_now() - TypeAdapter(Duration).validate_python(text)
    try:
        read = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter("write 30m, 2h, 7d or 2026-03-01T12:00Z") from None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Kind = Annotated[str | None, typer.Option(help="Only jobs of this kind.")]
Queue = Annotated[str | None, typer.Option(help="Only jobs of this queue.")]
Tag = Annotated[str | None, typer.Option(help="Only jobs with this tag.")]
ErrorCode = Annotated[str | None, typer.Option(help="Only jobs whose last error has this code.")]
Since = Annotated[
    datetime | None,
    typer.Option(parser=_moment, metavar="TIME", help="Only jobs that ended since: 2h, or a time."),
]
Until = Annotated[
    datetime | None,
    typer.Option(
        parser=_moment, metavar="TIME", help="Only jobs that ended before: 2h, or a time."
    ),
]
OfTenant = Annotated[UUID | None, typer.Option(help="Only jobs of this tenant.")]
JobId = Annotated[UUID, typer.Argument(help="The job's id.", metavar="JOB")]

TABLE_WIDTH = 1000

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
    "tags",
    "created_at",
    "request_id",
]


def register(app: typer.Typer) -> None:
    app.add_typer(jobs, name="jobs")


@jobs.command("list")
def list_jobs(  # noqa: PLR0913 - each narrows the list
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Kind = None,
    queue: Queue = None,
    tag: Tag = None,
    error_code: ErrorCode = None,
    since: Since = None,
    until: Until = None,
    tenant: OfTenant = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = MAX_LIMIT,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first; `--state discarded` are the dead letters."""
    wanted = JobFilter(
        state=state,
        kind=kind,
        queue=queue,
        tag=tag,
        error_code=error_code,
        since=since,
        until=until,
    )

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
        _print_json(found, "args", "metadata_", "result", "errors")
        return
    console = Console()
    for name in (*FIELDS, "args", "metadata_", "result"):
        _print_field(console, name.rstrip("_"), getattr(found, name), style="bold")
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


@jobs.command()
def redrive(  # noqa: PLR0913 - each narrows what is redriven
    *,
    kind: Kind = None,
    queue: Queue = None,
    tag: Tag = None,
    error_code: ErrorCode = None,
    since: Since = None,
    until: Until = None,
    tenant: OfTenant = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All dead letters: needed where nothing narrows them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run discarded jobs again: those that ended before now and that the options choose.

    Each gets at least one more attempt. Stopping it in the middle does no harm: what was redriven
    stays so, and the same command goes on with the rest. One job alone: `jangada jobs retry`.
    """
    wanted = JobFilter(
        kind=kind, queue=queue, tag=tag, error_code=error_code, since=since, until=until
    )
    if wanted == JobFilter() and tenant is None and not everything:
        raise typer.BadParameter("say which jobs, or --all")
    chosen, redriven = asyncio.run(_redrive(wanted, tenant, dry_run=dry_run))
    if as_json:
        said = {"chosen": chosen, "redriven": redriven, "dry_run": dry_run}
        typer.echo(orjson.dumps(said).decode())
    elif dry_run:
        typer.echo(f"Would be redriven: {chosen}.")
    else:
        typer.echo(f"Redriven: {redriven}.")


async def _redrive(wanted: JobFilter, tenant: UUID | None, *, dry_run: bool) -> tuple[int, int]:
    """How many dead letters there were, and how many were redriven, some in each transaction."""
    async with open_runtime(load_settings(), application_name="jangada-jobs") as runtime:
        async with runtime.database.system_transaction("jangada jobs redrive") as session:
            chosen, until = await dead_letters.count_dead_letters(session, wanted, tenant_id=tenant)
        done, last, has_more = 0, None, bool(chosen) and not dry_run
        bounded = wanted.model_copy(update={"until": until})
        with _progress(chosen, is_shown=has_more) as advance:
            while has_more:
                async with runtime.database.system_transaction("jangada jobs redrive") as session:
                    turn = await dead_letters.redrive(
                        session, bounded, tenant_id=tenant, after=last
                    )
                done, last, has_more = done + turn.jobs, turn.last, turn.has_more
                advance(turn.jobs)
    return chosen, done


@contextmanager
def _progress(total: int, *, is_shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not (is_shown and console.is_terminal)) as progress:
        task = progress.add_task("Redriving", total=total)
        yield lambda count: progress.advance(task, count)


def _in_system_scope[T](act: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async def run() -> T:
        async with (
            open_runtime(load_settings(), application_name="jangada-jobs") as runtime,
            runtime.database.system_transaction("jangada jobs") as session,
        ):
            return await act(session)

    return asyncio.run(run())


async def _job(session: AsyncSession, id: UUID) -> Job:
    """Whosever it is. No index has ids alone, so the key of each tenant is asked for it."""
    of_any = select(Job).join(Tenant, Tenant.id == Job.tenant_id)
    job = await session.scalar(of_any.where(Job.id == id))
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
    row = {name.rstrip("_"): getattr(job, name) for name in (*FIELDS, *more)}
    typer.echo(orjson.dumps(row).decode())


def _print_table(found: list[Job]) -> None:
    """As wide as it takes: a narrow terminal breaks lines, but to fit into them loses columns."""
    columns = ("id", "kind", "queue", "state", "attempt", "scheduled_at", "finished_at")
    table = Table(*columns, box=None, header_style="bold")
    for job in found:
        table.add_row(*(Text(_shown(getattr(job, name))) for name in columns))
    Console(width=TABLE_WIDTH).print(table)
