"""The dispatcher: publishes what may start, recovers what was lost, and says how the queues are.

Any number may run: per queue and round the one that holds the lock works, so failover is the lock's
release. Nothing that a dispatcher does leaves a mark that another couldn't repeat.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from datetime import timedelta
from enum import Enum, auto
from functools import partial
from typing import Any, Final

import psycopg
from prometheus_client import CollectorRegistry

from jangada.announcement import announce
from jangada.errors import Unavailable
from jangada.jobs.delivery import dispatch
from jangada.jobs.delivery.connection import Connection, DirectConnection
from jangada.jobs.delivery.sweep import sweep
from jangada.runtime import Runtime
from jangada.schedules.firing import fire_due
from jangada.telemetry import get_logger
from jangada_queue.errors import QueueRefused, QueueUnavailable
from jangada_queue.messages import Offer
from jangada_queue.patience import Pauses, Stop, pause, unless
from jangada_queue.signals import tell
from jangada_queue.watch import Watch
from jangada_worker.housekeeping import Housekeeping
from jangada_worker.management import Health, management
from jangada_worker.metrics import DispatcherMetrics
from jangada_worker.refusals import Refusals
from jangada_worker.retention import Retention, retentions
from jangada_worker.windows import Windows

log = get_logger(__name__)

TURN: Final = 0.25
LOSER_WAIT: Final = 0.003
"""How long the loser of a queue's lock waits before it passes the wake on, in seconds."""

SHORTEST_LOOK: Final = timedelta(milliseconds=20)
"""How long is waited at least before the same thing is looked at again."""

STATEMENT_DEADLINE: Final = timedelta(seconds=30)


class Round(Enum):
    """How a round ended."""

    MORE = auto()
    """Something was published: there may be more."""
    QUIET = auto()
    """Nothing to publish, or no room: a wake will come."""
    HELD = auto()
    """Another dispatcher has the queue."""
    REFUSED = auto()
    """Valkey won't do it for this queue, which waits now."""


class Dispatcher:
    """One dispatcher process."""

    def __init__(self, runtime: Runtime, registry: CollectorRegistry, stop: Stop) -> None:
        self._runtime = runtime
        self._jobs = runtime.settings.jobs
        self._client = runtime.queue
        self._registry = registry
        self._metrics = DispatcherMetrics(registry)
        runtime.database.tally = self._metrics.count_enqueued
        self._stopping = stop.asked
        self._absent: dict[str, str] = {}
        self._refusals = Refusals()
        self._health = Health(self._faults, self._degraded)
        self._dispatching, self._sweeping, self._keeping = (
            DirectConnection(runtime.database, deadline=STATEMENT_DEADLINE) for _ in range(3)
        )
        self._queues = set(runtime.settings.worker.queues)
        retention = Retention(self._keeping, self._metrics, retentions(self._jobs))
        self._windows = Windows(self._jobs)
        self._end = 0.0
        self._house = Housekeeping(
            *(self._client, self._keeping, self._metrics),
            lease=self._jobs.message_lease,
            retention=retention,
        )

    async def run(self) -> None:
        """Work until the stop."""
        settings = self._runtime.settings.worker
        with management(
            settings.management_host, settings.management_port, self._health, self._registry
        ) as url:
            announce(management_url=url)
            log.info("dispatcher is ready", management_url=url)
            async with asyncio.TaskGroup() as group:
                for work in self._works():
                    group.create_task(work)
        for connection in (self._dispatching, self._sweeping, self._keeping):
            await connection.close()

    def _works(self) -> Iterable[Coroutine[Any, Any, None]]:
        yield self._dispatch()
        yield self._sweep()
        yield self._keep_house()
        yield self._persist(self._fire_due, "schedules", interval=0.0)
        yield self._turn()

    async def _fire_due(self) -> None:
        """Fire what is due, and wait for the next fire, or for one that somebody adds meanwhile."""
        fired = await fire_due(self._runtime.database, grace=self._jobs.misfire_grace)
        self._metrics.fired.inc(fired.jobs)
        longest = self._jobs.sweep_interval
        wait = longest if fired.until_next is None else min(fired.until_next, longest)
        # What is due and wasn't fired here is a rival's: it isn't asked for without end.
        shortest = timedelta(0) if fired.jobs else SHORTEST_LOOK
        await pause(self._stopping, max(shortest, wait).total_seconds())

    async def _turn(self) -> None:
        """Show that the loop turns. The short sleep also has signals noticed at once."""
        while not self._stopping.is_set():
            self._health.turn()
            await pause(self._stopping, TURN)

    async def _dispatch(self) -> None:
        await self._persist(self._dispatch_once, "dispatch", interval=0.0)

    async def _dispatch_once(self) -> None:
        """Look at all queues, serve those with work, and those that are woken, until the next look.

        The next one comes after `idle_poll`, however busy a queue is: others may have become due.
        """
        began = time.monotonic()
        surveyed = await self._dispatching.run(dispatch.survey)
        self._queues |= surveyed.available | surveyed.until_due.keys()
        for queue in surveyed.due:
            await self._dispatching.run(partial(dispatch.promote, queue=queue))
        with_work = surveyed.available | surveyed.due
        self._refusals.keep(with_work)
        waits = [wait for wait in surveyed.until_due.values() if wait > timedelta(0)]
        self._end = began + min([self._jobs.idle_poll, *waits]).total_seconds()
        await self._serve(with_work)
        await self._await_wakes()

    def _look_again(self, wait: timedelta | None) -> None:
        """A rate limit lets more start soon: look at all queues then, if not before."""
        if wait is not None:
            soon = time.monotonic() + max(wait, SHORTEST_LOOK).total_seconds()
            self._end = min(self._end, soon)

    async def _serve(self, queues: Collection[str]) -> None:
        """Rounds over the queues, one each in turn, until none brings anything or the end comes.

        One that Valkey refuses keeps no other waiting.
        """
        active = self._refusals.without(queues)
        while active and not self._stopping.is_set():
            rounds = {queue: await self._round(queue) for queue in active}
            active = [queue for queue, round_ in rounds.items() if round_ is Round.MORE]
            if time.monotonic() >= self._end:
                break

    async def _await_wakes(self) -> None:
        """Serve each queue that is woken until it is time to look at all of them again."""
        while not self._stopping.is_set() and (left := self._left()) > 0:
            woken = await self._woken(left)
            if woken is None:
                continue
            if await self._round(woken) is Round.HELD:
                await asyncio.sleep(LOSER_WAIT)
                await tell(self._client, wake=[woken])
            else:
                await self._serve([woken])

    def _left(self) -> float:
        """Seconds until all queues are looked at again, or one that was refused is tried again."""
        return min(self._end, self._refusals.until) - time.monotonic()

    async def _woken(self, left: float) -> str | None:
        """A queue that is woken within so many seconds; those that were refused are let be."""
        queues = self._refusals.without(self._queues)
        if not queues:
            await pause(self._stopping, left)
            return None
        waiting = self._client.wait_for_dispatch(queues, timedelta(seconds=left))
        return await unless(self._stopping, waiting)

    async def _round(self, queue: str) -> Round:
        try:
            found = await self._dispatching.run(lambda held: self._publish(held, queue))
        except QueueRefused as error:
            if self._refusals.add(queue):
                log.warning("work waits", work="dispatch", queue=queue, error=error)
            return Round.REFUSED
        self._refusals.discard(queue)
        return found

    async def _publish(self, connection: Connection, queue: str) -> Round:
        """Publish until the window is full, while nobody else can."""
        async with dispatch.dispatch_round(connection, queue) as held:
            if held is None:
                return Round.HELD
            limits = await held.limits()
            on_offer = await self._client.on_offer(queue, with_messages=bool(limits))
            limit = self._windows.size(queue, held.slots)
            offers, turn = list[Offer](), ""
            if (need := limit - on_offer.waiting) > 0:
                kinds = self._house.kinds(queue)
                choice = await held.choose(need, on_offer, limits=limits, kinds=kinds)
                offers, turn = [ticket.offer() for ticket in choice.tickets], str(choice.turn)
                self._look_again(choice.until_more)
            answer = await self._client.publish(queue, offers, limit=limit, turn=turn)
        self._windows.count(queue, answer.published)
        self._metrics.published.labels(queue).inc(answer.published)
        is_full = answer.waiting >= limit
        return Round.MORE if answer.published and not is_full else Round.QUIET

    async def _sweep(self) -> None:
        watch = Watch(self._jobs.worker_timeout)

        async def once() -> None:
            try:
                swept = await self._sweeping.run(lambda found: sweep(found, watch))
            except BaseException:
                watch.lose()
                raise
            self._metrics.count_swept(swept)
            if swept.workers or swept.recovered or swept.discarded:
                log.warning(
                    "jobs of dead workers were swept",
                    workers=len(swept.workers),
                    recovered=sorted(map(str, swept.recovered)),
                    discarded=sorted(map(str, swept.discarded)),
                )
            if swept.queues:
                await tell(self._client, wake=swept.queues)

        await self._persist(once, "sweep", interval=self._jobs.sweep_interval.total_seconds())

    async def _keep_house(self) -> None:
        interval = self._jobs.sweep_interval.total_seconds()
        await self._persist(
            lambda: self._house.keep(self._queues), "housekeeping", interval=interval
        )

    async def _persist(
        self, work: Callable[[], Awaitable[None]], name: str, *, interval: float
    ) -> None:
        """Do the work again and again until the stop, with pauses while something is absent."""
        pauses = Pauses()
        while not self._stopping.is_set():
            try:
                await work()
            except (Unavailable, QueueUnavailable, psycopg.Error) as error:
                is_valkey = isinstance(error, QueueUnavailable)
                self._absent[name] = "valkey" if is_valkey else "postgresql"
                if pauses.is_first:
                    log.warning("work waits", work=name, error=error)
                await pause(self._stopping, pauses.take())
                continue
            self._absent.pop(name, None)
            pauses.reset()
            if interval:
                await pause(self._stopping, interval)

    def _faults(self) -> dict[str, str]:
        return {"process": "it is shutting down"} if self._stopping.is_set() else {}

    def _degraded(self) -> dict[str, str]:
        waiting: dict[str, list[str]] = {}
        for work, absent in sorted(self._absent.copy().items()):
            waiting.setdefault(absent, []).append(work)
        for queue in self._refusals.queues:
            waiting.setdefault("valkey", []).append(f"dispatch of {queue}")
        return {absent: f"{', '.join(waiting[absent])} waits for it" for absent in sorted(waiting)}
