"""`jangada up` from its start to its end: what is started in which order, and how it is stopped.

Start: servers, schema, demo account, then dispatcher, worker and api together. Stop, in order: api,
worker (its jobs are drained), dispatcher, Valkey, PostgreSQL. Whatever the reason for the end, no
process is left; when this one is killed, the kernel ends the children and the next start the rest.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta

from jangada.config import ApiSettings, Settings
from jangada.errors import JangadaError
from jangada.local.data_folder import MARKER, DataFolder
from jangada.local.errors import FolderUnusable, PortInUse
from jangada.local.output import Output
from jangada.local.platforms import Options, Platform

EXIT_INTERRUPTED = 130

LOOP_TICK = timedelta(milliseconds=200)
"""asyncio may notice a signal only at its next event: there is always one soon."""


def refuse_busy_ports(options: Options, api: ApiSettings) -> None:
    """Say at once what would otherwise be the end of a long start. Raises `PortInUse`."""
    if options.port == options.management_port != 0:
        raise PortInUse(
            f"Port {options.port} can't be both --port and --management-port: choose another."
        )
    refuse_busy_port(api.host, options.port, "--port")
    refuse_busy_port(api.management_host, options.management_port, "--management-port")


def refuse_busy_port(host: str, port: int, option: str) -> None:
    """Raise `PortInUse` for one that can't be had, which the option would change."""
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUse(
                f"Port {port} on {host} cannot be had ({error.strerror}): end what uses it, or "
                f"choose another by {option} (0 takes a free one)."
            ) from error


class Interruptions:
    """Ctrl-C and SIGTERM: the first asks for an orderly end, the second hurries it."""

    def __init__(self, output: Output) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self._output = output
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A hang-up that was ignored when we were started (nohup) stays ignored.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self._interrupt, number)
        self._tick(loop)

    def _interrupt(self, number: signal.Signals) -> None:
        if not self.stop.is_set():
            self._output.say("stopping", reason=signal.Signals(number).name)
            self.stop.set()
        elif not self.hurry.is_set():
            self._output.say("hurrying")
            self.hurry.set()
        else:
            # The kernel signals every process of ours when this one is gone.
            os._exit(EXIT_INTERRUPTED)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(LOOP_TICK.total_seconds(), self._tick, loop)


async def _finishes(work: Coroutine[None, None, None], unless: asyncio.Event) -> bool:
    """Whether the work was done before the event; it is cancelled otherwise."""
    task = asyncio.create_task(work)
    waiting = asyncio.create_task(unless.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
        return True
    return False


def _refuse_busy(options: Options, settings: Settings) -> None:
    """Where they are taken by another `up` in the same folder, that is what has to be said."""
    try:
        refuse_busy_ports(options, settings.api)
    except PortInUse:
        if (options.data_dir / MARKER).exists():
            DataFolder(options.data_dir).open().close()
        raise


async def _run(options: Options, settings: Settings, output: Output) -> int:
    _refuse_busy(options, settings)
    interruptions = Interruptions(output)
    folder = DataFolder(options.data_dir).open()
    platform = Platform(options, settings, folder, output)
    is_ready = False
    try:
        is_ready = await _finishes(platform.start(), unless=interruptions.stop)
        await interruptions.stop.wait()
    finally:
        await platform.stop(interruptions.hurry)
        folder.close()
    output.say("finished", data_dir=str(folder.path))
    return 0 if is_ready else EXIT_INTERRUPTED


async def run(options: Options, settings: Settings, output: Output) -> int:
    """Run a platform until it is told to stop: the exit code. Raises a `JangadaError`."""
    try:
        return await _run(options, settings, output)
    except JangadaError as error:
        output.say("error", detail=error.detail, code=error.code)
        raise
    except OSError as error:
        output.say("error", detail=str(error), code=FolderUnusable.code)
        raise FolderUnusable(f"The machine refuses: {error}.") from error
    finally:
        output.close()
