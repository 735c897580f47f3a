"""What all pools' queues say: one round trip for each broker, whatever number it serves."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from jangada_operator.absence import place_of, why_absent, why_unreadable
from jangada_operator.workerpool.observing import Look
from jangada_operator.workerpool.spec import Pool, PoolKey
from jangada_queue.client import QueueClient
from jangada_queue.connection import open_client
from jangada_queue.statistics import QueueStats, queue_stats

DEADLINE: Final = timedelta(seconds=2)
CONNECTIONS: Final = 8
PATIENCE: Final = 0.5
"""So many seconds a look waits for servers that take their time."""


class UnreadableBroker(ValueError):
    """The URL in the secret is none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said of each queue that it was asked for, or why it said nothing."""

    stats: Mapping[str, QueueStats] | None
    age: float | None = 0.0
    why: str = ""


@dataclass(slots=True)
class Broker:
    """One server, under one prefix."""

    client: QueueClient
    url: str = field(repr=False)
    looked_at: float | None = None
    """When it answered last, by a clock that never jumps."""
    asked: asyncio.Task[Answer] | None = None
    """The question that it hasn't answered yet, or whose answer nobody has taken."""

    @property
    def place(self) -> str:
        return place_of(self.url)

    async def close(self) -> None:
        if self.asked is not None:
            self.asked.cancel()
            await asyncio.wait([self.asked])
        await self.client.redis.aclose()


@dataclass(slots=True)
class Brokers:
    """All servers that some pool names, by URL and prefix; those that none does are closed."""

    deadline: timedelta = DEADLINE
    _open: dict[tuple[str, str], Broker] = field(default_factory=dict)

    def of(self, url: str, prefix: str) -> Broker:
        """Raises `UnreadableBroker`."""
        found = self._open.get((url, prefix))
        if found is None:
            try:
                redis = open_client(url, connections=CONNECTIONS)
            except ValueError as error:
                raise UnreadableBroker(why_unreadable(error)) from None
            client = QueueClient(redis, prefix=prefix, deadline=self.deadline)
            found = self._open[url, prefix] = Broker(client, url)
        return found

    async def look(self, pools: Mapping[PoolKey, tuple[Pool, Broker]]) -> Mapping[PoolKey, Look]:
        """What the queues of each pool say now; pools whose server takes its time are left out.

        A server that hangs delays nobody else: what it says, or that it was silent until the
        deadline, is in a later look, and until then it isn't asked again.
        """
        served: defaultdict[int, list[tuple[Pool, Broker]]] = defaultdict(list)
        for pool, broker in pools.values():
            served[id(broker)].append((pool, broker))
        if begun := [asked for each in served.values() if (asked := _begin(each)) is not None]:
            await asyncio.wait(begun, timeout=PATIENCE)
        looks: dict[PoolKey, Look] = {}
        for each in served.values():
            looks |= _take(each)
        return looks

    async def keep(self, brokers: Iterable[Broker]) -> None:
        """Close all others."""
        kept = {id(broker) for broker in brokers}
        for key, broker in list(self._open.items()):
            if id(broker) not in kept:
                del self._open[key]
                await broker.close()

    async def close(self) -> None:
        await self.keep(())


def _begin(served: Sequence[tuple[Pool, Broker]]) -> asyncio.Task[Answer] | None:
    """Ask a server for the queues of all its pools; None where it still owes an answer."""
    broker = served[0][1]
    if broker.asked is not None:
        return None
    queues = list(dict.fromkeys(queue for pool, _ in served for queue in pool.queues))
    broker.asked = asyncio.create_task(_ask(broker, queues), name=f"look at {broker.place}")
    return broker.asked


async def _ask(broker: Broker, queues: Sequence[str]) -> Answer:
    try:
        stats = await queue_stats(broker.client, queues)
    except Exception as error:  # noqa: BLE001 - one server's trouble is none of the others'
        last, why = broker.looked_at, why_absent(error, broker.url)
        return Answer(None, None if last is None else time.monotonic() - last, why)
    broker.looked_at = time.monotonic()
    return Answer(dict(zip(queues, stats, strict=True)))


def _take(served: Sequence[tuple[Pool, Broker]]) -> Mapping[PoolKey, Look]:
    """What a server has answered, if it has; of queues that came since it is asked next time."""
    broker = served[0][1]
    if broker.asked is None or not broker.asked.done():
        return {}
    answer, broker.asked = broker.asked.result(), None
    if answer.stats is None:
        return {pool.key: Look(None, answer.age, answer.why) for pool, _ in served}
    stats = answer.stats
    return {
        pool.key: Look([stats[queue] for queue in pool.queues])
        for pool, _ in served
        if stats.keys() >= set(pool.queues)
    }
