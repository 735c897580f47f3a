"""What all pools' queues say: one round trip for each broker, whatever number it serves."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from redis.exceptions import RedisError

from jangada_operator.absence import why_absent, why_unreadable
from jangada_operator.workerpool.observing import Look
from jangada_operator.workerpool.spec import Pool, PoolKey
from jangada_queue.client import QueueClient
from jangada_queue.connection import open_client
from jangada_queue.errors import QueueUnavailable
from jangada_queue.statistics import QueueStats, queue_stats

DEADLINE: Final = timedelta(seconds=2)
CONNECTIONS: Final = 8


class UnreadableBroker(ValueError):
    """The URL in the secret is none."""


@dataclass(slots=True)
class Broker:
    """One server, under one prefix."""

    client: QueueClient
    url: str = field(repr=False)
    looked_at: float | None = None
    """When it answered last, by a clock that never jumps."""


@dataclass(slots=True)
class Brokers:
    """All servers that some pool names, by URL and prefix; those that none does are closed."""

    _open: dict[tuple[str, str], Broker] = field(default_factory=dict)

    def of(self, url: str, prefix: str) -> Broker:
        """Raises `UnreadableBroker`."""
        found = self._open.get((url, prefix))
        if found is None:
            try:
                redis = open_client(url, connections=CONNECTIONS)
            except ValueError as error:
                raise UnreadableBroker(why_unreadable(error)) from None
            client = QueueClient(redis, prefix=prefix, deadline=DEADLINE)
            found = self._open[url, prefix] = Broker(client, url)
        return found

    async def look(self, pools: Mapping[PoolKey, tuple[Pool, Broker]]) -> Mapping[PoolKey, Look]:
        """What the queues of each pool say now; servers are asked at the same time."""
        served: defaultdict[int, list[tuple[Pool, Broker]]] = defaultdict(list)
        for pool, broker in pools.values():
            served[id(broker)].append((pool, broker))
        looks: dict[PoolKey, Look] = {}
        for found in await asyncio.gather(*map(_look_at, served.values())):
            looks |= found
        return looks

    async def keep(self, brokers: Iterable[Broker]) -> None:
        """Close all others."""
        kept = {id(broker) for broker in brokers}
        for key, broker in list(self._open.items()):
            if id(broker) not in kept:
                del self._open[key]
                await broker.client.redis.aclose()

    async def close(self) -> None:
        await self.keep(())


async def _look_at(served: list[tuple[Pool, Broker]]) -> Mapping[PoolKey, Look]:
    broker = served[0][1]
    queues = list(dict.fromkeys(queue for pool, _ in served for queue in pool.queues))
    try:
        stats = await queue_stats(broker.client, queues)
    except (QueueUnavailable, RedisError) as error:
        now, last = time.monotonic(), broker.looked_at
        age, why = None if last is None else now - last, why_absent(error, broker.url)
        return {pool.key: Look(None, age, why) for pool, _ in served}
    broker.looked_at = time.monotonic()
    by_name = dict(zip(queues, stats, strict=True))
    return {pool.key: Look(_of(pool, by_name)) for pool, _ in served}


def _of(pool: Pool, stats: Mapping[str, QueueStats]) -> list[QueueStats]:
    return [stats[queue] for queue in pool.queues]
