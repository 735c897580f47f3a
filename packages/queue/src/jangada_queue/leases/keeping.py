"""The worker's side of its helper process: it starts it, tells it the news, and replaces it."""

import asyncio
import logging
import math
import pickle
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from jangada_queue.leases.keeper import LENGTH_BYTES, LONGEST_LINE, News, Plan, Said
from jangada_queue.patience import Pauses, wait_at_most
from jangada_queue.processes import whole_lines

log = logging.getLogger(__name__)

NEWS_EVERY: Final = 0.5
"""How often the helper is told how the worker is, in seconds."""

GOODBYE: Final = 4.0
"""How long the helper may take to end once the worker has said its last word, in seconds.

taskiq gives the whole shutdown of a broker five by default.
"""


class UnsharedOption(TypeError):
    """An argument of the connection can't be handed to another process."""


class Keeping:
    """A helper process between `start` and `close`; a new one whenever it ends."""

    def __init__(
        self, plan: Plan, *, news: Callable[[bool], News], flagged: Callable[[str], None]
    ) -> None:
        self._plan = _packed(plan)
        self._news = news
        self._flagged = flagged
        self.process: Process | None = None
        self._patience = plan.lease.total_seconds() / 2
        self._renewed_at = -math.inf
        self._renewed = asyncio.Event()
        self._closing = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Return when closed. No process is left, however this ends."""
        pauses = Pauses(first=0.5, longest=10.0)
        while not self._closing.is_set():
            try:
                if await self._listen_to_end(await self._start()):
                    pauses.reset()
            except OSError as error:
                log.warning("the helper process can't be started: %s", error)
            except Exception:
                log.exception("the helper process can't be understood: a new one starts")
            await wait_at_most(self._closing.wait(), pauses.take())

    async def _start(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jangada_queue.leases.keeper"),
            stdin=PIPE,
            stdout=PIPE,
            limit=LONGEST_LINE,
        )
        self._write(process, self._plan)
        return process

    async def _listen_to_end(self, process: Process) -> bool:
        """Return when it has ended, and its pipes are closed; whether it said anything."""
        self.process = process
        telling = asyncio.create_task(self._tell())
        try:
            has_spoken = await self._listen(process)
        except asyncio.CancelledError:
            _kill(process)
            raise
        finally:
            telling.cancel()
            await _end(process)
            self.process = None
        if not self._closing.is_set():
            code = process.returncode
            log.warning("the helper process ended with code %s: a new one starts", code)
        return has_spoken

    @property
    def is_renewing(self) -> bool:
        return time.monotonic() - self._renewed_at <= self._patience

    async def renewing(self) -> None:
        """Return once leases are being renewed: who claims before that may lose what it claims."""
        while not self.is_renewing:
            self._renewed.clear()
            await self._renewed.wait()

    def tell(self) -> None:
        """Tell the news now; the last ones are told once `close` was called."""
        if self.process is not None:
            news = self._news(self._closing.is_set())
            self._write(self.process, msgspec.json.encode(news) + b"\n")

    async def _tell(self) -> None:
        """Say goodbye in the end."""
        while not self._closing.is_set():
            self.tell()
            await wait_at_most(self._closing.wait(), NEWS_EVERY)
        self.tell()
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    @staticmethod
    def _write(process: Process, data: bytes) -> None:
        """A helper that is gone is replaced, and told everything anew."""
        if process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(data)

    async def _listen(self, process: Process) -> bool:
        """Log what the helper says until it ends; whether it said anything."""
        has_spoken = False
        decoder = msgspec.json.Decoder(Said)
        assert process.stdout is not None  # noqa: S101 - it was started with a pipe
        async for line in whole_lines(process.stdout):
            has_spoken = True
            said = decoder.decode(line)
            if said.warning:
                log.warning(said.warning)
            if said.info:
                log.info(said.info)
            if said.has_renewed:
                self._renewed_at = time.monotonic()
                self._renewed.set()
            if said.drain is not None:
                self._flagged(said.drain)
        return has_spoken

    async def close(self) -> None:
        """Tell the last news, and have the helper end; one that doesn't in `GOODBYE` is killed."""
        self._closing.set()
        if self._running is not None:
            _, late = await asyncio.wait([self._running], timeout=GOODBYE)
            if late:
                self._running.cancel()
                await asyncio.wait([self._running])


async def _end(process: Process) -> None:
    """Return when it has ended and its pipes are closed: who speaks no more is killed in time."""
    try:
        async with asyncio.timeout(GOODBYE):
            await process.communicate()
    except asyncio.CancelledError:
        _kill(process)
        raise
    except TimeoutError:
        _kill(process)
        await process.communicate()  # allow deadline: it was killed


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


def _packed(plan: Plan) -> bytes:
    try:
        packed = pickle.dumps(plan)
    except Exception as error:
        for name, value in plan.options.items():
            _check(name, value)
        raise UnsharedOption(
            f"The plan of the helper process can't be handed to it: {error}"
        ) from error
    return len(packed).to_bytes(LENGTH_BYTES) + packed


def _check(name: str, value: object) -> None:
    try:
        pickle.dumps(value)
    except Exception as error:
        raise UnsharedOption(
            f"The connection's argument {name!r} can't be handed to the helper process; give paths "
            f"and names instead of objects ({error})."
        ) from error
