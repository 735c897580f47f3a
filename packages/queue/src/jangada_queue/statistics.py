"""What is known of queues, in one round trip for any number of them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

from jangada_queue.client import QueueClient
from jangada_queue.connection import as_bytes, as_text, command, run, run_each, within
from jangada_queue.scripts import script
from jangada_queue.workers import STALE, WorkerReport, registry

UPSTREAM_STALE: Final = timedelta(seconds=5)


class Upstream(msgspec.Struct, frozen=True):
    """Work that a dispatcher knows of and hasn't published, by PostgreSQL's clock.

    `available` is exact up to 10,000; from there on it means "at least".
    """

    available: int
    running: int
    oldest_wait_seconds: float
    due_60s: int
    enqueued_total: int


class QueueStats(msgspec.Struct, frozen=True):
    """One queue. `workers` are the live ones; `upstream` is None when it was never written."""

    queue: str
    waiting: int
    claimed: int
    window: int
    parked: dict[str, int]
    published_total: int
    expired_total: int
    unreadable_total: int
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
        return sum(worker.busy for worker in self.workers)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that some live worker knows."""
        return frozenset(kind for worker in self.workers for kind in worker.kinds)


async def queue_stats(client: QueueClient, queues: Sequence[str]) -> list[QueueStats]:
    """The figures of each queue, in the order asked for; one never used is all zeroes."""
    calls = []
    for queue in queues:
        keys = client.keys(queue)
        calls.append(
            [
                keys.stream,
                keys.window,
                keys.parked,
                keys.counters,
                keys.upstream,
                keys.workers,
                keys.beats,
            ]
        )
    async with within(client.deadline):
        replies = await run_each(client.redis, script("stats"), calls)
    return [_decode(queue, reply) for queue, reply in zip(queues, replies, strict=True)]


def _pairs(flat: Sequence[Any]) -> dict[str, int]:
    return {as_text(name): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _tolerant[T](payload: object, type_: type[T]) -> T | None:
    """None for a report of another major version: it is no reason to know nothing of the rest."""
    try:
        return msgspec.json.decode(as_bytes(payload), type=type_)
    except msgspec.DecodeError:
        return None


def _decode(queue: str, reply: Sequence[Any]) -> QueueStats:
    (waiting, claimed, window), parked, counters, figures, age, *beats = reply
    totals = _pairs(counters)
    live = [
        worker
        for payload, silence in beats
        if silence <= STALE.total_seconds() * 1000
        and (worker := _tolerant(payload, WorkerReport)) is not None
    ]
    return QueueStats(
        queue=queue,
        waiting=waiting,
        claimed=claimed,
        window=window,
        parked=_pairs(parked),
        published_total=totals.get("published", 0),
        expired_total=totals.get("expired", 0),
        unreadable_total=totals.get("unreadable", 0),
        upstream=_tolerant(figures, Upstream) if figures else None,
        upstream_age_seconds=None if age < 0 else age / 1000,
        workers=live,
    )


async def write_upstream(client: QueueClient, queue: str, figures: Upstream) -> None:
    """Publish what the dispatcher knows; its age is measured by Valkey's clock."""
    async with within(client.deadline):
        await run(
            client.redis,
            script("upstream"),
            [client.keys(queue).upstream],
            [msgspec.json.encode(figures)],
        )
        await command(client.redis, "SADD", registry(client), queue)
