"""Keeps the worker processes running, and ends them in order."""

import asyncio
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Final
from uuid import UUID

from prometheus_client import CollectorRegistry

from jangada.announcement import announce
from jangada.db import new_id
from jangada.errors import Unavailable
from jangada.jobs.delivery.connection import DirectConnection
from jangada.jobs.delivery.workers import NewWorker
from jangada.runtime import Runtime
from jangada.telemetry import get_logger
from jangada_queue import workers
from jangada_queue.errors import QueueUnavailable
from jangada_queue.patience import Pauses, Stop, pause
from jangada_queue.service_times import ServiceTimes, observe
from jangada_queue.workers import WorkerReport
from jangada_worker.forkserver import ForkServer, ForkServerLost
from jangada_worker.link import Drain, Flagged, HandBack, Observations
from jangada_worker.management import Health, management
from jangada_worker.metrics import WorkerMetrics
from jangada_worker.parent.children import Child
from jangada_worker.parent.crew import Crew
from jangada_worker.parent.heart import Heart
from jangada_worker.parent.pool import LocalPool
from jangada_worker.parent.watchdog import Watchdog
from jangada_worker.patience import GRACE, LAST_WORDS

log = get_logger(__name__)

TURN: Final = 0.25
REPORT_EVERY: Final = 1.0
STOPPING: Final = "stopping"
"""What a worker that stops says instead of a flag."""
LAST_TURN: Final = (GRACE + LAST_WORDS).total_seconds() + 2
"""How long a child may take beyond its drain before it is killed, in seconds."""


class Supervisor:
    """The parent process of a pod's workers."""

    def __init__(
        self, server: ForkServer, runtime: Runtime, registry: CollectorRegistry, stop: Stop
    ) -> None:
        settings = runtime.settings
        self._server = server
        self._runtime = runtime
        self._settings = settings.worker
        self._registry = registry
        self._metrics = WorkerMetrics(registry)
        self._pod = self._settings.pod_uid or new_id().hex
        self._version = version("jangada-worker")
        self._children: dict[int, Child] = {}
        self._numbers: set[int] = set()
        """Of the processes that there are to be; one that isn't there is being started."""
        self._gone: list[UUID] = []
        self._completed: dict[str, ServiceTimes] = {}
        self._stop = stop
        self._ready = asyncio.Event()
        self._is_lost = False
        self._flags: dict[str, str] = {}
        self._is_valkey_absent = False
        self._health = Health(self._faults, self._degraded, self._ready.is_set)
        # A connection that is dead without a word costs a beat, and another one is made in time.
        beat, timeout = settings.jobs.beat_interval, settings.jobs.worker_timeout
        self._connection = DirectConnection(runtime.database, deadline=(timeout - beat) / 2)
        self._heart = Heart(
            self._connection,
            runtime.queue,
            interval=settings.jobs.beat_interval.total_seconds(),
            children=self._children.values,
            describe=self._describe,
            failed=self._metrics.late_beats.inc,
        )
        self._watchdog = Watchdog(self._connection, self._children.values)

    async def run(self) -> None:
        """Run the children until the stop, then drain them.

        Raises `Unavailable` when the fork server was killed.
        """
        settings = self._settings
        pool_size = self._runtime.settings.database.pool_size
        if settings.slots > pool_size:
            log.warning(
                "more slots than pooled connections: handlers may wait for one",
                slots=settings.slots,
                pool_size=pool_size,
            )
        with management(
            settings.management_host, settings.management_port, self._health, self._registry
        ) as url:
            async with asyncio.TaskGroup() as group:
                crew = Crew(group, self._keep, self._numbers)
                for _ in range(self._first_processes()):
                    crew.start()
                background = [
                    group.create_task(work)
                    for work in (
                        self._heart.run(),
                        self._watchdog.run(),
                        self._report(),
                        self._turn(),
                        self._announce(url),
                        self._follow_queues(crew),
                    )
                ]
                await self._stop.asked.wait()
                await self._drain([*crew.keepers])
                for task in background:
                    task.cancel()
            await self._leave()
        if self._is_lost:
            raise Unavailable("The process that forks the worker processes was killed.")

    def _first_processes(self) -> int:
        """Where their number follows the queues one says what kinds there are."""
        least = self._settings.min_processes
        return self._settings.processes if least is None else max(1, least)

    async def _follow_queues(self, crew: Crew) -> None:
        """Where that is wanted, have as many processes as let jobs start in time."""
        if self._settings.min_processes is None:
            return
        await self._ready.wait()
        pool = LocalPool(
            settings=self._settings,
            client=self._runtime.queue,
            processes=lambda: {child.pod: child for child in self._children.values()},
            asked=lambda: len(self._numbers),
            start=crew.start,
            end=self._end,
        )
        await pool.run()

    def _end(self, pod: str) -> None:
        """End a process that is empty, for good."""
        for number, child in self._children.items():
            if child.pod == pod:
                self._numbers.discard(number)
                child.send(Drain(self._settings.drain_timeout.total_seconds()))

    async def _turn(self) -> None:
        """Show that the loop turns. The short sleep also has signals noticed at once."""
        while True:
            self._health.turn()
            busy = sum(len(child.running) for child in self._children.values())
            self._metrics.show_slots(busy, self._settings.slots * len(self._children))
            await asyncio.sleep(TURN)

    async def _announce(self, url: str) -> None:
        await self._ready.wait()
        announce(management_url=url)
        log.info("worker is ready", processes=self._settings.processes, management_url=url)

    async def _keep(self, number: int) -> None:
        """Have a child running until the stop, a new one at once whenever it ends.

        Only one that fails to start is waited for, longer each time.
        """
        pauses = Pauses(first=0.5, longest=30.0)
        while number in self._numbers and not self._stop.asked.is_set():
            try:
                child = await Child.spawn(self._server, self._pod_of(number))
            except ForkServerLost:
                self._give_up()
                return
            except OSError as error:
                log.warning("no worker process can be started", error=error)
                await pause(self._stop.asked, pauses.take())
                continue
            self._children[number] = child
            if self._stop.asked.is_set():
                child.send(HandBack())
            code = await child.live(self._observe, self._on_ready)
            del self._children[number]
            if child.worker is not None:
                self._gone.append(child.worker)
                self._heart.bury(child.worker, in_order=child.said_farewell and code == 0)
            if self._stop.asked.is_set() or number not in self._numbers:
                return
            self._metrics.restarts.inc()
            log.warning("a worker process ended and is replaced", pid=child.pid, code=code)
            if child.is_ready:
                pauses.reset()  # a job killed it; the next ones shouldn't wait for that
            else:
                await pause(self._stop.asked, pauses.take())

    def _observe(self, news: Observations) -> None:
        self._metrics.count_enqueued(dict(news.tallies))
        for ended in news.ended:
            self._metrics.observe(ended)
            if ended.outcome != "lease_lost":
                times = self._completed.setdefault(ended.queue, ServiceTimes())
                times.add(ended.seconds, ended.kind)

    def _give_up(self) -> None:
        """End in order; whoever started this worker starts another one."""
        log.error("the process that forks the worker processes was killed, this worker ends")
        self._is_lost = True
        self._stop.ask()

    def _on_ready(self) -> None:
        self._heart.hurry()
        children = self._children.values()
        if len(children) == len(self._numbers) and all(c.is_ready for c in children):
            self._ready.set()

    async def _drain(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        """Let running jobs end; when their time is up they go back to the queue."""
        seconds = self._settings.drain_timeout.total_seconds()
        log.info("draining", seconds=seconds)
        self._tell_children(Drain(seconds))
        ended = asyncio.ensure_future(_all_done(keepers))
        hurried = asyncio.ensure_future(self._stop.hurried.wait())
        await asyncio.wait(
            {ended, hurried}, timeout=seconds + LAST_TURN, return_when=asyncio.FIRST_COMPLETED
        )
        hurried.cancel()
        if not ended.done():
            self._tell_children(HandBack())
            await asyncio.wait({ended}, timeout=LAST_TURN)
        for child in self._children.values():
            log.warning("a worker process did not end and is killed", pid=child.pid)
            child.kill()
        await ended

    def _tell_children(self, message: Drain | HandBack) -> None:
        for child in self._children.values():
            child.send(message)

    async def _leave(self) -> None:
        """The last beat buries the children: nobody has to wait for their silence."""
        await self._heart.beat()
        await self._connection.close()
        with suppress(QueueUnavailable):
            await self._tell_valkey()

    async def _report(self) -> None:
        """Tell Valkey how the children are, until cancelled."""
        while True:
            try:
                await self._tell_valkey()
                if self._is_valkey_absent:
                    log.info("Valkey is back")
                self._is_valkey_absent = False
            except QueueUnavailable as error:
                if not self._is_valkey_absent:
                    log.warning("Valkey is absent: running jobs go on, none start", error=error)
                self._is_valkey_absent = True
            await asyncio.sleep(REPORT_EVERY)

    async def _tell_valkey(self) -> None:
        """Report the living and take leave of the gone; the answer says whether to drain."""
        client, queues = self._runtime.queue, self._settings.queues
        for pod, reports in self._reports().items():
            self._flags[pod] = await workers.report(client, pod, reports, queues=queues)
        self._tell_flags()
        if gone := [str(worker) for worker in self._gone]:
            await workers.leave(client, queues, gone)
            del self._gone[: len(gone)]
        for queue in list(self._completed):
            await observe(client, queue, self._completed.pop(queue))

    def _pod_of(self, number: int) -> str:
        """All processes drain together, but where their number follows the queues."""
        return self._pod if self._settings.min_processes is None else f"{self._pod}-{number}"

    def _reports(self) -> Mapping[str, list[WorkerReport]]:
        """By pod; ours is asked for although no process of it may have registered yet."""
        found: defaultdict[str, list[WorkerReport]] = defaultdict(list)
        if self._settings.min_processes is None:
            found[self._pod] = []
        for child in self._children.values():
            if child.worker:
                found[child.pod].append(self._report_of(child))
        self._flags = {pod: flag for pod, flag in self._flags.items() if pod in found}
        return found

    def _tell_flags(self) -> None:
        """Children say with their next report that they have seen it."""
        for child in self._children.values():
            flag = self._flags.get(child.pod, "")
            if child.drain != flag:
                child.send(Flagged(flag))

    def _report_of(self, child: Child) -> WorkerReport:
        return WorkerReport(
            worker=str(child.worker),
            pod=child.pod,
            host=socket.gethostname(),
            pid=child.pid,
            version=self._version,
            queues=self._settings.queues,
            kinds=[facts.kind for facts in child.kinds],
            slots=self._settings.slots,
            running=child.running,
            claiming=child.claiming,
            drain=child.drain or (STOPPING if self._stop.asked.is_set() else ""),
        )

    def _describe(self, worker: UUID, child: Child) -> NewWorker:
        return NewWorker(
            id=worker,
            pod_uid=child.pod,
            host=socket.gethostname(),
            pid=child.pid,
            version=self._version,
            queues=self._settings.queues,
            slots=self._settings.slots,
            kinds=child.kinds,
        )

    def _faults(self) -> dict[str, str]:
        """A worker is ready while one of its processes runs and nobody drains it."""
        faults = {}
        is_empty = self._settings.min_processes == 0 and not self._numbers
        if not is_empty and not any(c.is_ready for c in tuple(self._children.values())):
            faults["children"] = "no worker process runs"
        if self._flags.get(self._pod) or self._stop.asked.is_set():
            faults["process"] = "it is draining"
        return faults

    def _degraded(self) -> dict[str, str]:
        degraded = {}
        if self._heart.is_absent:
            degraded["postgresql"] = "it does not take the beat"
        if self._is_valkey_absent:
            degraded["valkey"] = "it does not answer"
        return degraded


async def _all_done(tasks: Sequence[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)
