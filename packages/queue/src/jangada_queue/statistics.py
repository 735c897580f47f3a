"""What is known of queues, in one round trip for any number of them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

from jangada_queue.client import QueueClient
from jangada_queue.connection import as_bytes, as_text, run, run_each, within
from jangada_queue.errors import UnsafeServer
from jangada_queue.scripts import script
from jangada_queue.service_times import ServiceTimes
from jangada_queue.workers import STALE, WorkerReport, remember

UPSTREAM_STALE: Final = timedelta(seconds=5)


class Upstream(msgspec.Struct, frozen=True):
    """Work that a dispatcher knows of and hasn't published, by PostgreSQL's clock.

    `available` is exact up to 10,000; from there on it means "at least". `arrival_per_second` is
    decayed over a minute.
    """

    available: int
    running: int
    oldest_wait_seconds: float
    due_60s: int
    enqueued_total: int
    arrival_per_second: float = 0.0
    due_10s: int = 0


class QueueStats(msgspec.Struct, frozen=True):
    """One queue. `workers` are the live ones; `upstream` is None when it was never written.

    Rates are decayed over a minute; service times are those of the last five to ten minutes in
    which work was completed, None before any was. `oldest_wait_seconds` is that of the oldest
    published message that waits, or of what waits upstream when that is older; None when nothing
    waits. `due_10s` and `due_60s` are the delayed messages that are due by then, `due` included.
    """

    queue: str
    waiting: int
    claimed: int
    delayed: int
    due: int
    due_10s: int
    due_60s: int
    dead: int
    window: int
    parked: dict[str, int]
    published_total: int
    completed_total: int
    expired_total: int
    unreadable_total: int
    oldest_wait_seconds: float | None
    arrival_per_second: float
    completion_per_second: float
    service_mean_seconds: float | None
    service_p95_seconds: float | None
    service: ServiceTimes
    upstream: Upstream | None
    upstream_age_seconds: float | None
    workers: list[WorkerReport]

    @property
    def is_upstream_fresh(self) -> bool:
        age = self.upstream_age_seconds
        return age is not None and age <= UPSTREAM_STALE.total_seconds()

    @property
    def slots(self) -> int:
        return sum(worker.slots for worker in self.workers)

    @property
    def busy(self) -> int:
        """How many callbacks run: a lease that is merely held isn't work."""
        return sum(worker.busy for worker in self.workers)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that some live worker knows."""
        return frozenset(kind for worker in self.workers for kind in worker.kinds)


async def queue_stats(client: QueueClient, queues: Sequence[str]) -> list[QueueStats]:
    """The figures of each queue, in the order asked for; one never used is all zeroes."""
    bases = [client.keys(queue).base for queue in queues]
    async with within(client.deadline):
        replies = await run_each(client.redis, script("stats"), bases)
    return [_decode(queue, reply) for queue, reply in zip(queues, replies, strict=True)]


def _pairs(flat: Sequence[Any]) -> dict[str, int]:
    return {as_text(name): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _tolerant[T](payload: object, type_: type[T]) -> T | None:
    """None for a report of another major version: it is no reason to know nothing of the rest."""
    try:
        return msgspec.json.decode(as_bytes(payload), type=type_)
    except msgspec.DecodeError:
        return None


def _live(beats: Sequence[Any]) -> list[WorkerReport]:
    return [
        worker
        for payload, silence in beats
        if silence <= STALE.total_seconds() * 1000
        and (worker := _tolerant(payload, WorkerReport)) is not None
    ]


def _decode(queue: str, reply: Sequence[Any]) -> QueueStats:
    depth, parked, counters, figures, age, waits, rates, service, previous, *beats = reply
    waiting, claimed, window, delayed, due, due_10s, due_60s, dead = depth
    totals: Mapping[str, int] = _pairs(counters)
    upstream = _tolerant(figures, Upstream) if figures else None
    arrived, completed = (float(rate) for rate in rates)
    times = ServiceTimes.of(_pairs(service), _pairs(previous))
    return QueueStats(
        queue=queue,
        waiting=waiting,
        claimed=claimed,
        delayed=delayed,
        due=due,
        due_10s=due_10s,
        due_60s=due_60s,
        dead=dead,
        window=window,
        parked=_pairs(parked),
        published_total=totals.get("published", 0),
        completed_total=totals.get("completed", 0),
        expired_total=totals.get("expired", 0),
        unreadable_total=totals.get("unreadable", 0),
        oldest_wait_seconds=_oldest(waits, upstream),
        arrival_per_second=arrived if upstream is None else upstream.arrival_per_second,
        completion_per_second=completed,
        service_mean_seconds=times.mean(),
        service_p95_seconds=times.quantile(0.95),
        service=times,
        upstream=upstream,
        upstream_age_seconds=None if age < 0 else age / 1000,
        workers=_live(beats),
    )


def _oldest(milliseconds: int, upstream: Upstream | None) -> float | None:
    waits = [] if milliseconds < 0 else [milliseconds / 1000]
    if upstream is not None and upstream.available > 0:
        waits.append(upstream.oldest_wait_seconds)
    return max(waits, default=None)


async def write_upstream(client: QueueClient, queue: str, figures: Upstream) -> None:
    """Publish what the dispatcher knows; its age is measured by Valkey's clock.

    Raises `UnsafeServer` for a queue that a taskiq application serves: two truths would lose work.
    """
    async with within(client.deadline):
        payload = msgspec.json.encode(figures)
        truth = await run(client.redis, script("upstream"), client.keys(queue).base, [payload])
        await remember(client, [queue])
    if as_text(truth) != "postgresql":
        raise UnsafeServer(f"The queue {queue} is a taskiq application's; jobs need another one.")
