"""A Valkey, workers and a sender for one scenario, all its own, and the means to hurt them."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil
import redis
from taskiq import AsyncBroker
from taskiq.kicker import AsyncKicker

from chaos.application import make_broker as make
from chaos.application import register, register_late
from chaos.columns import Column, Pace
from chaos.forkserver import Forked, Launch, start
from chaos.ledger import Ledger
from chaos.servers import Valkey
from jangada.local.process import Child, Command
from jangada.local.valkey import EmbeddedValkey

BENCH: Final = Path(__file__).parent.parent
POLL: Final = 0.01
LONGEST_POLL: Final = 0.05
STARTING: Final = 120.0
"""Seconds that programs may take to start on a busy machine."""

WRITTEN_DOWN: Final = {signal.SIGKILL: "killed", signal.SIGSTOP: "frozen"}
SHOWN: Final = 20


async def until(condition: Callable[[], Any], within: float) -> bool:
    """Ask again until the answer is true; False when it didn't become so in these seconds.

    Less often with time: a question costs, too.
    """
    pause, end = POLL, time.monotonic() + within
    while not condition():
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, LONGEST_POLL)
    return True


@dataclass(slots=True)
class Program:
    """A running `taskiq worker` or `taskiq scheduler`, with all of its processes."""

    child: Child | Forked
    log: Path
    ledger: Ledger

    @property
    def family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.child.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def signal(self, number: signal.Signals, *pids: int) -> None:
        """Signal the whole family, or some of it; the killed are written down.

        Before they die: others may go on with their jobs at once, and we may have to wait for the
        processor.
        """
        for pid in pids or [process.pid for process in self.family]:
            if number in WRITTEN_DOWN:
                self.ledger.write(WRITTEN_DOWN[number], "-", pid=pid)
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def kill(self) -> float:
        """As a node that loses power; answers when."""
        at = time.monotonic()
        self.signal(signal.SIGKILL)
        await asyncio.wrap_future(self.child.ended)
        return at

    async def stop(self, within: float = STARTING) -> float | None:
        """Ask it to end, as Kubernetes does; the seconds that it took, or None if it didn't."""
        began, family = time.monotonic(), [process.pid for process in self.family]
        self.child.send(signal.SIGTERM)
        if not await until(lambda: not self.child.is_running, within):
            return None
        for pid in family:
            self.ledger.write("gone", "-", pid=pid)
        return time.monotonic() - began

    def up(self) -> int:
        """How many of its processes are ready to take jobs."""
        self.ledger.look()
        up = self.ledger.pids("up")
        return len(up & {process.pid for process in self.family}) if up else 0

    def said(self, words: str) -> int:
        """How often."""
        return self.log.read_text("utf-8", "replace").count(words)


class DidNotStartError(Exception):
    """With what the program said last."""

    def __init__(self, program: Program) -> None:
        super().__init__("\n".join(program.log.read_text().splitlines()[-SHOWN:]))


@dataclass(slots=True)
class Harness:
    """Everything around one scenario in one column."""

    column: Column
    pace: Pace
    folder: Path
    valkey: Valkey
    ledger: Ledger
    launch: Launch = start
    programs: list[Program] = field(default_factory=list)
    sender: AsyncBroker | None = None
    _sent: int = 0

    @property
    def url(self) -> str:
        return self.valkey.url

    def grace(self, seconds: float) -> float:
        """Seconds to wait for what takes so long on an idle machine, where that is judged."""
        return seconds if self.pace.judges_time else max(seconds, STARTING)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=STARTING, decode_responses=False)

    def environ(self, options: Mapping[str, Any], **more: str) -> dict[str, str]:
        ours = {
            "BROKER": self.column.broker,
            "URL": self.url,
            "FOLDER": str(self.ledger.folder),
            "OPTIONS": json.dumps(self.column.options(self.pace, options)),
            **{name.upper(): value for name, value in more.items()},
        }
        path = [
            self.column.environ.get("PYTHONPATH", ""),
            str(BENCH),
            os.environ.get("PYTHONPATH", ""),
        ]
        return {
            **os.environ,
            **self.column.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            **{f"CHAOS_{name}": value for name, value in ours.items()},
        }

    def run(self, *arguments: str, environ: Mapping[str, str]) -> Program:
        log = self.folder / f"program-{len(self.programs)}.log"
        command = Command(
            argv=[self.column.python, "-m", "taskiq", *arguments],
            environ=environ,
            folder=self.folder,
            death_signal=signal.SIGKILL,
        )
        with log.open("wb") as output:
            program = Program(self.launch(command, output.fileno(), ()), log, self.ledger)
        self.programs.append(program)
        return program

    async def worker(
        self,
        *arguments: str,
        processes: int = 1,
        slots: int | None = None,
        options: Mapping[str, Any] | None = None,
        **more: str,
    ) -> Program:
        """A `taskiq worker` that listens."""
        how = ["--workers", str(processes), *arguments]
        how += ["--max-async-tasks", str(slots)] if slots else []
        program = self.run(
            *("worker", "chaos.application:build", *how, *self.column.arguments),
            environ=self.environ(options or {}, **more),
        )
        if not await until(lambda: program.up() >= processes, STARTING):
            raise DidNotStartError(program)
        return program

    async def start_sender(self, **options: Any) -> None:  # noqa: ANN401 - the broker's own
        """Whoever enqueues: in this process, as in a web application."""
        self.sender = make(self.column.broker, self.url, self.column.options(self.pace, options))
        register(self.sender, str(self.ledger.folder))
        register_late(self.sender, str(self.ledger.folder))
        await self.sender.startup()

    async def send(self, kind: str, **arguments: Any) -> str:  # noqa: ANN401 - the task's own
        """Enqueue a job with a name of its own; it counts once `kick` has returned."""
        assert self.sender is not None, "start_sender comes first"
        self._sent += 1
        job = f"{kind}-{self._sent}"
        self.ledger.write("perhaps", job)
        labels: dict[str, Any] = {"retry_on_error": True} if kind == "fail" else {}
        kicker: AsyncKicker[Any, Any] = AsyncKicker(kind, self.sender, labels)
        await kicker.kiq(job, **arguments)
        self.ledger.write("enqueued", job)
        return job

    async def started(self, job: str, times: int = 1, within: float = STARTING) -> bool:
        return await until(lambda: len(self.ledger.of("start", job)) >= times, within)

    async def ended(self, *jobs: str, within: float = STARTING) -> bool:
        wanted = set(jobs)
        return await until(lambda: wanted <= self.ledger.jobs("end"), within)

    async def settled(self, within: float = STARTING) -> bool:
        """Wait until all that was enqueued has ended."""
        return await self.ended(*self.ledger.jobs("enqueued"), within=within)

    def open_gate(self, name: str) -> None:
        (self.ledger.folder / name).touch()

    def streams(self) -> dict[str, dict[str, Any]]:
        """Every stream on the server: entries, and its one group's lag, pending and consumers."""
        with self.redis() as client:
            found = {}
            for key in client.scan_iter(_type="STREAM"):
                groups = client.xinfo_groups(key) or [{}]
                found[key.decode()] = {**groups[0], "entries": client.xlen(key)}
            return found

    def figure(self, name: str) -> int:
        """A figure of all streams together."""
        return sum(int(stream.get(name) or 0) for stream in self.streams().values())

    def pending(self) -> int:
        """Messages that some consumer took and nobody acknowledged."""
        return self.figure("pending")

    def keys_that_hold(self, marker: bytes) -> list[str]:
        """The keys whose serialised value has these bytes in it."""
        with self.redis() as client:
            client.config_set("rdbcompression", "no")
            held = ((key, client.dump(key) or b"") for key in client.scan_iter())
            return [key.decode() for key, value in held if marker in value]

    async def close(self) -> None:
        if self.sender is not None:
            with suppress(Exception):
                await self.sender.shutdown()
        for program in self.programs:
            if program.child.is_running:
                await program.kill()


@asynccontextmanager
async def harness(
    column: Column,
    pace: Pace,
    valkey: type[Valkey] = EmbeddedValkey,
    launch: Launch = start,
) -> AsyncIterator[Harness]:
    """A harness whose servers and processes are gone afterwards."""
    with TemporaryDirectory(prefix="jg-") as name:
        folder = Path(name)
        (folder / "ledger").mkdir()
        with valkey(folder / "valkey") as server:
            made = Harness(column, pace, folder, server, Ledger(folder / "ledger"), launch)
            try:
                yield made
            finally:
                await made.close()
