"""What a dispatcher does beside dispatching, about once a second for every queue.

It ends expired message leases, notices a window whose messages were lost, says what waits upstream,
learns which kinds the workers know, and deletes finished jobs whose retention is over. Every
dispatcher does it: each part is harmless twice.
"""

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import msgspec

from jangada.jobs.delivery import dispatch, kinds
from jangada.jobs.delivery.connection import DirectConnection
from jangada.telemetry import get_logger
from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueRefused, UnsafeServer
from jangada_queue.rates import DecayedRate
from jangada_queue.server import server_time
from jangada_queue.signals import tell
from jangada_queue.statistics import QueueStats, Upstream, queue_stats, write_upstream
from jangada_queue.watch import Watch
from jangada_queue.workers import known_queues, prune
from jangada_worker.metrics import DispatcherMetrics
from jangada_worker.retention import Retention

log = get_logger(__name__)

PRUNE_AFTER: Final = timedelta(minutes=1)
"""How long a worker is silent before Valkey forgets it; it counts for nothing long before."""


@dataclass(slots=True)
class Housekeeping:
    """The figures of the last round, and what follows from them."""

    client: QueueClient
    connection: DirectConnection
    metrics: DispatcherMetrics
    lease: timedelta
    retention: Retention
    prune_after: timedelta = PRUNE_AFTER
    _watch: Watch = field(init=False)
    _arrivals: dict[str, DecayedRate] = field(default_factory=dict)
    _kinds: dict[str, frozenset[str]] = field(default_factory=dict)
    _suspicious: dict[str, tuple[float, int]] = field(default_factory=dict)
    _foreign: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)
    _inherited: Collection[str] | None = None
    _pruned_at: float = -math.inf

    def __post_init__(self) -> None:
        self._watch = Watch(self.lease)

    def kinds(self, queue: str) -> frozenset[str]:
        """The kinds that the queue's workers know; none where there are no workers."""
        return self._kinds.get(queue, frozenset())

    async def keep(self, dispatched: Collection[str]) -> None:
        """One round over all queues: those that are dispatched, and those with workers."""
        try:
            await self._keep(dispatched)
        except BaseException:
            self.metrics.forget()
            raise

    async def _keep(self, dispatched: Collection[str]) -> None:
        waiting = await self.connection.run(dispatch.list_queues)
        queues = sorted({*dispatched, *waiting, *await self._inherit()})
        await self._watch_clock(queues)
        for stats in await self._figures(queues):
            self._kinds[stats.queue] = stats.kinds
            upstream = await self._upstream(stats)
            self.metrics.show(stats, upstream)
            if await self._is_ours(stats.queue, upstream):
                await self._expire(stats.queue)
                await self._heal(stats, upstream)
        if time.monotonic() - self._pruned_at >= self.prune_after.total_seconds():
            self._pruned_at = time.monotonic()
            await self.connection.run(kinds.prune_starts)
            self.metrics.show_aside(await self.connection.run(dispatch.count_aside), queues)
            for queue in set(queues) - self._foreign - self._refused:
                await prune(self.client, queue, self.prune_after)
                if known := self.kinds(queue):
                    await self.client.disown(queue, known)
        await self.retention.take_turn()

    async def _inherit(self) -> Collection[str]:
        """The queues that an earlier dispatcher told of: of empty ones nobody else would."""
        if self._inherited is None:
            known = await queue_stats(self.client, await known_queues(self.client))
            self._inherited = [stats.queue for stats in known if stats.upstream is not None]
        return self._inherited

    async def _watch_clock(self, queues: Collection[str]) -> None:
        """A clock that was set back would have message leases last until it has caught up."""
        self._watch.see(await server_time(self.client), time.monotonic())
        if self._watch.is_set_back:
            log.warning("Valkey's clock was set back: all message leases begin anew")
            for queue in set(queues) - self._foreign:
                await self.client.rebase(queue)

    async def _figures(self, queues: Sequence[str]) -> list[QueueStats]:
        """Of all queues but those that Valkey refuses, because something foreign is in a key."""
        try:
            found = await queue_stats(self.client, queues)
        except QueueRefused:
            return await self._figures_of_each(queues)
        self._refused.clear()
        return found

    async def _figures_of_each(self, queues: Sequence[str]) -> list[QueueStats]:
        found = list[QueueStats]()
        for queue in queues:
            try:
                found += await queue_stats(self.client, [queue])
                self._refused.discard(queue)
            except QueueRefused as error:
                if queue not in self._refused:
                    log.warning("a queue is of no use", queue=queue, error=error)
                self._refused.add(queue)
        return found

    async def _upstream(self, stats: QueueStats) -> Upstream:
        queue = stats.queue
        upstream = await self.connection.run(
            lambda found: dispatch.upstream(
                found, queue, published_total=stats.published_total, window=stats.window
            )
        )
        rate = self._arrivals.setdefault(queue, DecayedRate())
        arrival = rate.see(upstream.enqueued_total, time.monotonic())
        return msgspec.structs.replace(upstream, arrival_per_second=arrival)

    async def _is_ours(self, queue: str, upstream: Upstream) -> bool:
        """Say what waits upstream; false for a taskiq application's queue, which isn't ours."""
        try:
            await write_upstream(self.client, queue, upstream)
        except UnsafeServer as error:
            if queue not in self._foreign:
                log.warning("a queue's jobs are never published", queue=queue, error=error)
            self._foreign.add(queue)
            return False
        self._foreign.discard(queue)
        return True

    async def _expire(self, queue: str) -> None:
        """What a worker claimed and then died with is published again by the next round."""
        expired = await self.client.expire(queue, self.lease)
        if expired:
            log.warning("message leases expired", queue=queue, count=len(expired))
            self.metrics.expired.labels(queue).inc(len(expired))
            await tell(self.client, wake=[queue])

    async def _heal(self, stats: QueueStats, upstream: Upstream) -> None:
        """A window that names messages while none is there was lost in part: forget it.

        Only after nothing was claimed for half a lease: a claim shows that it isn't so.
        """
        queue = stats.queue
        is_hollow = (
            stats.waiting == 0
            and stats.claimed == 0
            and stats.window > sum(stats.parked.values())
            and upstream.available > 0
        )
        since, published = self._suspicious.get(queue, (time.monotonic(), stats.published_total))
        if not is_hollow or published != stats.published_total:
            self._suspicious.pop(queue, None)
            return
        self._suspicious[queue] = (since, published)
        if time.monotonic() - since >= self.lease.total_seconds() / 2:
            self._suspicious.pop(queue)
            forgotten = await self.client.clear_window(queue)
            log.warning("a window without messages was cleared", queue=queue, keys=forgotten)
            self.metrics.cleared.labels(queue).inc()
            await tell(self.client, wake=[queue])
