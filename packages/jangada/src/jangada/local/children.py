"""The platform's own programs as supervised child processes: api, dispatcher, worker.

A child says on the descriptor `JANGADA_READY_FD` where its management port is, which is then asked
until it is ready. A child that ends is started again, after a pause that doubles with each failure.
"""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil

from jangada.local.errors import ServerFailed
from jangada.local.logs import LogFile, tail
from jangada.local.output import Output, parse, readable
from jangada.local.pipes import Pipe, lines, open_pipe
from jangada.local.process import Child, Command, wait_until

READY_FD = "JANGADA_READY_FD"

MARK = "_JANGADA_UP"
"""In the environment of every child and its children: whose they are, should they be orphaned."""

READY_TIMEOUT = timedelta(seconds=60)
POLL = timedelta(milliseconds=50)
FIRST_PAUSE = timedelta(milliseconds=500)
LONGEST_PAUSE = timedelta(seconds=30)
STEADY = timedelta(seconds=30)
"""A child that lived so long did start: the pause after it is the first one again."""

HURRIED_GRACE = timedelta(seconds=10)
"""A worker gives its handlers a second and itself five to write what became of their jobs."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a child runs, and whose platform it belongs to."""

    name: str
    argv: Sequence[str]
    environ: Mapping[str, str]
    mark: str
    log: Path
    grace: timedelta = timedelta(seconds=20)
    is_quiet: bool = False
    """Whether only its warnings and errors are passed on; its log file has all it says."""

    def command(self, environ: Mapping[str, str]) -> Command:
        return Command(
            argv=self.argv,
            environ={**self.environ, **environ, MARK: self.mark},
            # Killed, not asked: the servers end at the same moment, so nothing could be finished.
            death_signal=signal.SIGKILL,
        )

    def failure(self, why: str) -> ServerFailed:
        return ServerFailed(f"{self.name} {why}. The end of {self.log}:\n{last_words(self.log)}")


def last_words(log: Path) -> str:
    """The end of a log, to read."""
    said: list[str] = []
    for line in tail(log).encode().splitlines():
        message, rest, trace = readable(parse(line))
        said += [f"{message}  {rest}".rstrip(), *trace]
    return "\n".join(said)


class Backoff:
    """Pauses that double, up to a limit, while what they wait for keeps failing."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    def after(self, lived: float) -> float:
        """How many seconds to wait after a life of so many."""
        if lived >= STEADY.total_seconds():
            self._next = FIRST_PAUSE
        pause, self._next = self._next, min(self._next * 2, LONGEST_PAUSE)
        return pause.total_seconds()


def reason(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


async def end(child: Child, grace: timedelta, hurry: asyncio.Event) -> None:
    """Ask a child to end; kill it when its time of grace is over.

    In a hurry it is asked again, which has a worker hand back its jobs, and has little time left.
    """
    ended = asyncio.wrap_future(child.ended)
    hurried = asyncio.create_task(hurry.wait())
    child.send(signal.SIGTERM)
    events: set[asyncio.Future[Any]] = {ended, hurried}
    timeout = grace.total_seconds()
    await asyncio.wait(events, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    if hurried.done() and not ended.done():
        child.send(signal.SIGTERM)
        await asyncio.wait({ended}, timeout=min(grace, HURRIED_GRACE).total_seconds())
    hurried.cancel()
    child.send(signal.SIGKILL)
    await ended


@asynccontextmanager
async def alive(
    program: Program, environ: Mapping[str, str], output: Output, log: LogFile
) -> AsyncIterator[tuple[Child, Pipe]]:
    """A running child, whose words are passed on, and the pipe on which it says that it's ready.

    It does not outlive the block, and its last words are heard.
    """
    with open_pipe() as said, open_pipe() as words:
        command = program.command({**environ, READY_FD: str(said.writing)})
        child = Child(command, output=words.writing, pass_fds=[said.writing])
        said.close_writing()
        words.close_writing()
        hearing = asyncio.create_task(_hear(words, program, output, log))
        try:
            yield child, said
        finally:
            child.send(signal.SIGKILL)
            # Nothing of its group is left, so the end of the pipe comes at once.
            await asyncio.wait([hearing], timeout=5.0)
            hearing.cancel()


async def _hear(words: Pipe, program: Program, output: Output, log: LogFile) -> None:
    async for line in lines(words):
        log.write(line)
        record = parse(line)
        if not (program.is_quiet and record.get("level") in {"debug", "info"}):
            output.say("log", process=program.name, record=record)


async def announcement(said: Pipe) -> dict[str, str]:
    """What a child says of itself; nothing if it ends without a word."""
    async for line in lines(said):
        spoken: dict[str, str] = json.loads(line)
        return spoken
    return {}


async def is_healthy(client: httpx.AsyncClient, management_url: str) -> bool:
    with suppress(httpx.HTTPError):
        answer = await client.get(f"{management_url}/health/ready")
        return answer.is_success
    return False


async def run_to_end(program: Program, output: Output) -> dict[str, str]:
    """Run a program that does one thing, and return what it announced. Raises `ServerFailed`."""
    output.say("starting", process=program.name)
    born = time.monotonic()
    log = LogFile(program.log)
    try:
        async with alive(program, {}, output, log) as (child, said):
            announced = await announcement(said)
            code = await asyncio.wrap_future(child.ended)
    finally:
        log.close()
    if code:
        raise program.failure(f"failed ({reason(code)})")
    output.say("started", process=program.name, seconds=round(time.monotonic() - born, 1))
    return announced


class Supervised:
    """A child that is kept running from `start` to `stop`."""

    def __init__(self, program: Program, output: Output) -> None:
        self.name = program.name
        self.child: Child | None = None
        self._program = program
        self._output = output
        self._environ: dict[str, str] = {}
        self._log = LogFile(program.log)
        self._stopping = asyncio.Event()
        self._ready: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> dict[str, str]:
        """What the child announced, once it is ready. Raises `ServerFailed` if it never is."""
        self._output.say("starting", process=self.name)
        self._keeper = asyncio.create_task(self._keep(), name=f"keeps {self.name}")
        try:
            async with asyncio.timeout(READY_TIMEOUT.total_seconds()):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            raise self._program.failure(
                f"was not ready within {READY_TIMEOUT.total_seconds():.0f} s"
            ) from None

    def pin(self, environ: Mapping[str, str]) -> None:
        """Settings for all later starts: what had a free port chosen keeps it."""
        self._environ.update(environ)

    async def stop(self, hurry: asyncio.Event) -> None:
        """Return when the child has ended."""
        self._stopping.set()
        if self.child is not None:
            await end(self.child, self._program.grace, hurry)
        if self._keeper is not None:
            await asyncio.wait([self._keeper])
            self._output.say("stopped", process=self.name)
        self._ready.cancel()
        self._log.close()

    async def _keep(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            born = time.monotonic()
            why = await self._live()
            if self._stopping.is_set():
                return
            if not self._ready.done():
                failure = self._program.failure(f"ended before it was ready ({why})")
                self._ready.set_exception(failure)
                return
            pause = backoff.after(time.monotonic() - born)
            self._output.say("exited", process=self.name, reason=why, restart_in=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _live(self) -> str:
        """One life of the child, from its start to its end: why it ended."""
        try:
            living = alive(self._program, self._environ, self._output, self._log)
            async with living as (self.child, said):
                greeting = asyncio.create_task(self._greet(said))
                code = await asyncio.wrap_future(self.child.ended)
                greeting.cancel()
                await asyncio.wait([greeting])
        except OSError as error:
            return str(error)
        return reason(code)

    async def _greet(self, said: Pipe) -> None:
        """Say that the child is ready when it is."""
        born = time.monotonic()
        announced = await announcement(said)
        url = announced.get("management_url")
        if url is None:
            return
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            while not await is_healthy(client, url):  # noqa: ASYNC110 - nothing outside tells us
                await asyncio.sleep(POLL.total_seconds())
        seconds = round(time.monotonic() - born, 1)
        self._output.say("started", process=self.name, seconds=seconds)
        if not self._ready.done():
            self._ready.set_result(announced)


def end_marked(mark: str) -> int:
    """Kill what children of a killed `up` left running, wherever it is now. How many there were."""
    found = [process for process in psutil.process_iter() if _is_marked(process, mark)]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if not wait_until(lambda: not any(_is_marked(process, mark) for process in found), 10.0):
        raise ServerFailed("Processes of an earlier run cannot be ended.")
    return len(found)


def _is_marked(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error, OSError):
        return process.environ().get(MARK) == mark
    return False
