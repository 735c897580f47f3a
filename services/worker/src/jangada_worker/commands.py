"""The commands `jangada worker`, `jangada dispatcher` and `jangada queue stats`."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
import typer
from prometheus_client import CollectorRegistry
from pydantic import SecretStr, ValidationError
from rich.console import Console
from rich.table import Table

from jangada.config import Settings, ValkeySettings, load_settings
from jangada.errors import Unavailable
from jangada.files.blobs import refuse_makeshift_storage
from jangada.loading import loading
from jangada.runtime import Runtime, open_runtime, open_valkey, start
from jangada.telemetry import get_logger, new_registry, tracing
from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueUnavailable, UnsafeServer
from jangada_queue.server import check_server
from jangada_queue.statistics import QueueStats, queue_stats
from jangada_queue.workers import known_queues
from jangada_worker.dispatcher import Dispatcher
from jangada_worker.forkserver import Run, fork_server
from jangada_worker.parent.supervisor import Supervisor
from jangada_worker.patience import Stop

log = get_logger(__name__)


def register(app: typer.Typer) -> None:
    app.command()(worker)
    app.command()(dispatcher)
    app.add_typer(queue, name="queue")


def worker() -> None:
    """Run jobs until SIGTERM, which lets them end; a second one hands them back at once."""
    settings = start(name := "jangada-worker")
    refuse_makeshift_storage(settings)
    with fork_server(_load_child) as server:
        _serve(settings, name, lambda *given: Supervisor(server, *given).run())


def _load_child() -> Run:
    with loading():
        from jangada_worker.child.program import run  # noqa: PLC0415 - only children need it
        from jangada_worker.discovery import import_platform  # noqa: PLC0415 - as above

        import_platform()
    return run


def dispatcher() -> None:
    """Publish jobs that are due and recover those of dead workers. Run two or more."""
    settings = start(name := "jangada-dispatcher")
    _serve(settings, name, lambda *given: Dispatcher(*given).run())


type Service = Callable[[Runtime, CollectorRegistry, Stop], Awaitable[None]]


def _serve(settings: Settings, name: str, service: Service) -> None:
    logging.getLogger("taskiq").setLevel(logging.WARNING)
    with tracing(settings.telemetry, name):
        asyncio.run(_run(settings, name, service))


async def _run(settings: Settings, name: str, service: Service) -> None:
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.ask)
    async with open_runtime(settings, application_name=name) as runtime:
        await _refuse_unsafe_role(runtime)
        await _warn_of_eviction(runtime.queue)
        await service(runtime, new_registry(), stop)


async def _refuse_unsafe_role(runtime: Runtime) -> None:
    """Raise `UnsafeRole`. Without PostgreSQL we start all the same, and wait for it."""
    try:
        await runtime.database.check_role()
    except Unavailable as error:
        log.warning("starting without PostgreSQL", cause=error)


async def _warn_of_eviction(client: QueueClient) -> None:
    try:
        await check_server(client)
    except UnsafeServer as error:
        log.warning(str(error))
    except QueueUnavailable as error:
        log.warning("Valkey is absent", error=error)


queue = typer.Typer(help="Look at the queues.", no_args_is_help=True)


@queue.callback()
def _queue() -> None:
    """Look at the queues."""


@queue.command()
def stats(
    names: Annotated[list[str] | None, typer.Argument(help="Queues; all by default.")] = None,
    *,
    broker: Annotated[
        str | None, typer.Option(help="URL of the Valkey; by default the settings' own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show what waits, runs and works in each queue."""
    try:
        found = asyncio.run(_stats(names or [], broker))
    except QueueUnavailable as error:
        raise Unavailable(str(error)) from error
    if as_json:
        for each in found:
            typer.echo(msgspec.json.encode(each).decode())
    else:
        _print(found)


async def _stats(names: list[str], broker: str | None) -> list[QueueStats]:
    settings = _at(broker) if broker else load_settings().valkey
    async with open_valkey(settings) as valkey:
        client = QueueClient(valkey)
        return await queue_stats(client, names or await known_queues(client))


def _at(broker: str) -> ValkeySettings:
    try:
        return ValkeySettings(url=SecretStr(broker))
    except ValidationError as error:
        raise typer.BadParameter("must be a redis://, rediss:// or unix:// URL") from error


def _print(found: list[QueueStats]) -> None:
    columns = ("queue", "waiting", "claimed", "parked", "available", "running", "oldest", "slots")
    table = Table(*columns, "workers", box=None, header_style="bold")
    for each in found:
        table.add_row(*_row(each))
    console = Console()
    width = console.width if console.is_terminal else console.measure(table).maximum
    console.print(table, width=width, crop=False, no_wrap=not console.is_terminal)


def _row(stats: QueueStats) -> list[str]:
    upstream = stats.upstream if stats.is_upstream_fresh else None
    return [
        stats.queue,
        str(stats.waiting),
        str(stats.claimed),
        str(sum(stats.parked.values())),
        str(upstream.available) if upstream else "?",
        str(upstream.running) if upstream else "?",
        f"{upstream.oldest_wait_seconds:.0f} s" if upstream else "?",
        f"{stats.busy}/{stats.slots}",
        str(len(stats.workers)),
    ]
