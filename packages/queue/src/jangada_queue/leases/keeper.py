"""The helper process of a worker process: it keeps its leases whatever the worker is busy with.

A handler that never yields, or C code that holds the interpreter lock, stops everything in its
process; nothing here. The helper renews what its worker holds, hands on at once what it held when
it dies, tells Valkey how it is, and sweeps the queues. It ends with its worker. While the worker is
stopped (SIGSTOP) its leases aren't renewed: they end after their time, as they do when the machine
is gone.

It reads one pickled `Plan` from standard input, then the worker's news, a JSON line each, and
answers with JSON lines on standard output. The pickle comes from the process that started it.
"""

import asyncio
import os
import pickle
import select
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from jangada_queue.client import QueueClient
from jangada_queue.connection import open_client
from jangada_queue.errors import QueueUnavailable
from jangada_queue.leases import client as leases
from jangada_queue.patience import Pauses, wait_at_most
from jangada_queue.processes import is_stopped, whole_lines
from jangada_queue.service_times import ServiceTimes, observe
from jangada_queue.watch import Watch
from jangada_queue.workers import WorkerReport, leave, prune, report

LENGTH_BYTES: Final = 4
LONGEST_LINE: Final = 16 * 1024 * 1024
PRUNE_EVERY: Final = timedelta(minutes=1)
REPORT_EVERY: Final = timedelta(seconds=1)
LAST_WORDS: Final = 5.0
"""How long the end may take where Valkey doesn't answer, in seconds."""

EXIT_GRACE: Final = 1000
"""How long after the end of its pipe a process that dies may take to be dead, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to keep, how, and for which process."""

    url: str
    options: Mapping[str, Any]
    prefix: str
    queues: tuple[str, ...]
    worker: str
    pod: str
    pid: int
    lease: timedelta
    renew_every: timedelta
    sweep_every: timedelta
    most_losses: int


class Held(msgspec.Struct, frozen=True):
    """The ids of what a worker knew to hold, by queue, at a moment of the machine's clock."""

    at: float
    ids: dict[str, list[str]]


class News(msgspec.Struct, frozen=True):
    """From the worker: how it is now, and what it completed since the last time.

    While a claim is under way it can't say what it `held`.
    """

    report: WorkerReport
    completed: dict[str, ServiceTimes] = {}
    held: Held | None = None
    is_last: bool = False


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """To the worker: a line for its log, that leases were renewed, or the pod's new drain flag."""

    warning: str = ""
    info: str = ""
    has_renewed: bool = False
    drain: str | None = None


def say(said: Said) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
        sys.stdout.buffer.flush()


class Worker:
    """The process that is kept for, as the operating system sees it."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    async def exit(self) -> None:
        """Return once the process has ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)

    def has_exited(self, *, within: int = 0) -> bool:
        """Whether it has ended, or does within so many milliseconds."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(within))


@dataclass(slots=True)
class Strays:
    """What Valkey has down for the worker, but the worker doesn't know of.

    The answer to its claim was lost: Valkey was slow, or the connection broke. Nobody runs it, and
    as long as it is renewed nobody else will. It may come late, when a server that stood still
    takes up what was sent to it, so each renewal looks: what was there before the worker told what
    it holds, and isn't among that, is a stray.
    """

    held: Held | None = None
    _seen: dict[str, dict[str, float]] = field(default_factory=dict)

    def find(self, queue: str, ids: Collection[str]) -> list[str]:
        """Those among the ids that the queue has down for the worker now."""
        before, now = self._seen.get(queue, {}), time.monotonic()
        seen = self._seen[queue] = {each: before.get(each, now) for each in ids}
        if self.held is None:
            return []
        known = frozenset(self.held.ids.get(queue, ()))
        return [id_ for id_, at in seen.items() if at < self.held.at and id_ not in known]


@dataclass(slots=True)
class Keeper:
    """One worker's helper, until the worker ends."""

    plan: Plan
    client: QueueClient
    worker: Worker
    _report: WorkerReport | None = None
    _completed: dict[str, ServiceTimes] = field(default_factory=dict)
    _strays: Strays = field(default_factory=Strays)
    _flag: str = ""
    _said_farewell: bool = False
    _hurried: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, news: asyncio.StreamReader) -> None:
        """Return when the worker has ended and all is cleared up."""
        loops = [
            asyncio.create_task(work)
            for work in (
                self._persist("renewing leases", self._renew, self.plan.renew_every),
                self._sweep(),
                self._tell(),
                self._persist("pruning", self._prune, PRUNE_EVERY),
            )
        ]
        ends = [asyncio.create_task(self._hear(news)), asyncio.create_task(self.worker.exit())]
        await asyncio.wait([*ends, *loops], return_when=asyncio.FIRST_COMPLETED)
        for task in (*loops, *ends):
            task.cancel()
        await asyncio.wait([*loops, *ends])
        for task in (*loops, *ends):
            if not task.cancelled():
                task.result()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._persist_once("clearing up", self._clear_up)

    async def _hear(self, news: asyncio.StreamReader) -> None:
        """Take in what the worker says, until it has nothing more to say."""
        decoder = msgspec.json.Decoder(News)
        async for line in whole_lines(news):
            heard = decoder.decode(line)
            self._said_farewell = heard.is_last
            if self._report is None or heard.report.drain != self._report.drain:
                self._hurried.set()
            self._report = heard.report
            self._strays.held = heard.held or self._strays.held
            for queue, times in heard.completed.items():
                self._completed.setdefault(queue, ServiceTimes()).merge(times)
            if self._said_farewell:
                return

    async def _renew(self) -> None:
        if is_stopped(self.plan.pid):
            return
        for queue in self.plan.queues:
            ids = await leases.renew_all(self.client, queue, self.plan.worker)
            if strays := self._strays.find(queue, ids):
                await self.client.release_ids(queue, strays)
                text = f"{len(strays)} messages of {queue} start elsewhere: the answer to their"
                say(Said(warning=f"{text} claim was lost"))
        say(Said(has_renewed=True))

    async def _tell(self) -> None:
        """Report, each second and when something important has changed."""
        while True:
            self._hurried.clear()
            await self._persist_once("reporting", self._report_once)
            await wait_at_most(self._hurried.wait(), REPORT_EVERY.total_seconds())

    async def _report_once(self) -> None:
        if self._report is None:
            return
        flag = await report(self.client, self.plan.pod, [self._report])
        if flag != self._flag:
            self._flag = flag
            say(Said(drain=flag))
        for queue in list(self._completed):
            await observe(self.client, queue, self._completed.pop(queue))

    async def _sweep(self) -> None:
        """Sweep all queues; sooner than planned where something is due before."""
        watches = {queue: Watch(self.plan.lease) for queue in self.plan.queues}
        seen: dict[str, datetime] = {}
        pauses = Pauses(longest=self.plan.sweep_every.total_seconds())
        while True:
            wait = self.plan.sweep_every
            try:
                for queue, watch in watches.items():
                    swept = await self._sweep_one(queue, watch, seen)
                    wait = min(wait, swept.until_due or wait)
            except QueueUnavailable:
                for watch in watches.values():
                    watch.lose()
                seen.clear()
                await asyncio.sleep(pauses.take())
                continue
            pauses.reset()
            await asyncio.sleep(wait.total_seconds())

    async def _sweep_one(self, queue: str, watch: Watch, seen: dict[str, datetime]) -> leases.Sweep:
        swept = await leases.sweep(
            self.client,
            queue,
            lease=self.plan.lease,
            most_losses=self.plan.most_losses,
            seen=seen.pop(queue, None),
        )
        if watch.see(swept.at, time.monotonic()):
            seen[queue] = swept.at
        if watch.is_set_back:
            await self.client.rebase(queue)
            say(Said(warning="Valkey's clock was set back: all leases begin anew"))
        if swept.returned or swept.buried:
            text = f"{swept.returned} leases of {queue} expired, {swept.buried} for the last time"
            say(Said(warning=text))
        return swept

    async def _prune(self) -> None:
        for queue in self.plan.queues:
            await prune(self.client, queue, PRUNE_EVERY)

    async def _persist(
        self, name: str, work: Callable[[], Awaitable[None]], interval: timedelta
    ) -> None:
        while True:
            await self._persist_once(name, work)
            await asyncio.sleep(interval.total_seconds())

    @staticmethod
    async def _persist_once(name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, as often as it takes."""
        pauses = Pauses(longest=1.0)
        while True:
            try:
                await work()
            except QueueUnavailable as error:
                if pauses.is_first:
                    say(Said(warning=f"{name} waits: {error}"))
                await asyncio.sleep(pauses.take())
                continue
            if not pauses.is_first:
                say(Said(info=f"{name} goes on"))
            return

    async def _clear_up(self) -> None:
        """What a dead worker held starts elsewhere at once; after a farewell nothing is held."""
        plan = self.plan
        if not self._said_farewell and self.worker.has_exited(within=EXIT_GRACE):
            for queue in plan.queues:
                losses = await leases.surrender(
                    self.client,
                    queue,
                    plan.worker,
                    None,
                    most_losses=plan.most_losses,
                    detail="Its worker process died while it ran.",
                )
                self._tell_of(queue, losses)
        for queue in list(self._completed):
            await observe(self.client, queue, self._completed.pop(queue))
        await leave(self.client, plan.queues, [plan.worker])

    def _tell_of(self, queue: str, losses: leases.Losses) -> None:
        """Where the worker's own log was: it can't say any more what became of its messages."""
        if any((losses.returned, losses.delayed, losses.buried)):
            sys.stderr.write(
                f"worker process {self.plan.pid} died: {losses.returned} messages of {queue} start "
                f"elsewhere, {losses.buried} were lost for the last time and are dead letters\n"
            )


@asynccontextmanager
async def _standard_input() -> AsyncIterator[asyncio.StreamReader]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        yield reader
    finally:
        transport.close()


async def _main() -> None:
    async with _standard_input() as news:
        length = int.from_bytes(await news.readexactly(LENGTH_BYTES))
        plan: Plan = pickle.loads(await news.readexactly(length))  # noqa: S301 - from our parent
        async with open_client(plan.url, plan.options, connections=4) as redis:
            client = QueueClient(redis, prefix=plan.prefix, deadline=plan.lease / 5)
            await Keeper(plan, client, Worker(plan.pid)).run(news)


if __name__ == "__main__":
    # Whoever stops the worker may stop its whole group: this process ends when the worker has.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(_main())
