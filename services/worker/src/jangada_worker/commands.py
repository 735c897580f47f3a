"""The commands `jangada worker`, `jangada dispatcher`, `jangada pools` and `jangada queue`."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

import typer
import uvloop
from prometheus_client import CollectorRegistry

from jangada.config import Settings, load_settings
from jangada.errors import Unavailable
from jangada.files.blobs import usable_storage
from jangada.loading import loading
from jangada.runtime import Runtime, master_key, open_runtime
from jangada.scopes import refuse_pooler
from jangada.starting import start
from jangada.telemetry import get_logger, new_registry, tracing
from jangada_queue.client import QueueClient
from jangada_queue.commands import queue_commands
from jangada_queue.errors import QueueUnavailable, UnsafeServer
from jangada_queue.patience import Stop
from jangada_queue.server import check_server
from jangada_worker.dispatcher import Dispatcher
from jangada_worker.forkserver import Run, fork_server
from jangada_worker.parent.supervisor import Supervisor
from jangada_worker.pools import pools

log = get_logger(__name__)


def register(app: typer.Typer) -> None:
    app.command()(worker)
    app.command()(dispatcher)
    app.command()(pools)
    app.add_typer(queue_commands(_broker), name="queue")


def worker() -> None:
    """Run jobs until SIGTERM, which lets them end; a second one hands them back at once."""
    settings = start(name := "jangada-worker", master_key, usable_storage)
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
    settings = start(name := "jangada-dispatcher", master_key)
    _serve(settings, name, lambda *given: Dispatcher(*given).run())


type Service = Callable[[Runtime, CollectorRegistry, Stop], Awaitable[None]]


def _serve(settings: Settings, name: str, service: Service) -> None:
    logging.getLogger("taskiq").setLevel(logging.WARNING)
    with tracing(settings.telemetry, name):
        asyncio.run(_run(settings, name, service), loop_factory=uvloop.new_event_loop)


async def _run(settings: Settings, name: str, service: Service) -> None:
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.ask)
    async with open_runtime(settings, application_name=name) as runtime:
        await _refuse_unsafe_database(runtime)
        await _warn_of_eviction(runtime.queue)
        await service(runtime, new_registry(), stop)


async def _refuse_unsafe_database(runtime: Runtime) -> None:
    """Raise `UnsafeRole` or `PooledSession`. Without PostgreSQL we start, and wait for it."""
    try:
        await runtime.database.check_role()
        async with runtime.database.direct() as connection:
            await refuse_pooler(connection)
    except Unavailable as error:
        log.warning("starting without PostgreSQL", cause=error)


async def _warn_of_eviction(client: QueueClient) -> None:
    try:
        await check_server(client)
    except UnsafeServer as error:
        log.warning(str(error))
    except QueueUnavailable as error:
        log.warning("Valkey is absent", error=error)


def _broker() -> str:
    return load_settings().valkey.url.get_secret_value()
