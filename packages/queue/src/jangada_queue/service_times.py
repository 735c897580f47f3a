"""How long work takes, as a histogram that workers add to and anybody may read.

Buckets grow by a fifth each, so a quantile is at most 20 % too high; the mean is exact.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from jangada_queue.client import QueueClient
from jangada_queue.connection import Argument

SHORTEST: Final = 0.001
GROWTH: Final = 1.2
BUCKETS: Final = 100
KIND: Final = "kind:"
COUNT: Final = ":count"
SUM: Final = ":sum"
"""The last bucket begins at 0.001 s × 1.2 ** 99, some 19 hours."""

MIDDLES: Final = tuple(SHORTEST * GROWTH ** (bucket - 0.5) for bucket in range(BUCKETS))
"""The time that stands for all of a bucket."""


def bucket_of(seconds: float) -> int:
    if seconds <= SHORTEST:
        return 0
    return min(BUCKETS - 1, math.ceil(math.log(seconds / SHORTEST, GROWTH)))


@dataclass(slots=True)
class ServiceTimes:
    """Times that were observed: their number, their sum and the buckets they fell into.

    `kinds` has number and sum (in milliseconds) of each kind of work.
    """

    count: int = 0
    milliseconds: int = 0
    buckets: dict[int, int] = field(default_factory=dict)
    kinds: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, *generations: Mapping[str, int]) -> Self:
        """What Valkey holds, of several generations together."""
        found = cls()
        for stored in generations:
            found.count += stored.get("count", 0)
            found.milliseconds += stored.get("sum", 0)
            for name, count in stored.items():
                if name.isdecimal():
                    found._fill(int(name), count)
                elif name.startswith(KIND) and name.endswith(COUNT):
                    kind = name.removeprefix(KIND).removesuffix(COUNT)
                    found._fill_kind(kind, count, stored.get(f"{KIND}{kind}{SUM}", 0))
        return found

    def add(self, seconds: float, kind: str) -> None:
        self.count += 1
        milliseconds = round(seconds * 1000)
        self.milliseconds += milliseconds
        self._fill(bucket_of(seconds), 1)
        self._fill_kind(kind, 1, milliseconds)

    def merge(self, other: "ServiceTimes") -> None:
        self.count += other.count
        self.milliseconds += other.milliseconds
        for bucket, count in other.buckets.items():
            self._fill(bucket, count)
        for kind, (count, milliseconds) in other.kinds.items():
            self._fill_kind(kind, count, milliseconds)

    def _fill_kind(self, kind: str, count: int, milliseconds: int) -> None:
        before = self.kinds.get(kind, (0, 0))
        self.kinds[kind] = (before[0] + count, before[1] + milliseconds)

    def _fill(self, bucket: int, count: int) -> None:
        self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def mean(self) -> float | None:
        return self.milliseconds / 1000 / self.count if self.count else None

    def means(self) -> dict[str, float]:
        """The mean time of each kind, in seconds."""
        return {kind: total / 1000 / count for kind, (count, total) in self.kinds.items() if count}

    def capped(self, limit: float) -> tuple[float, float]:
        """Mean and squared coefficient of variation, had all longer ones ended at the limit.

        As exact as the buckets: within a tenth of the mean.
        """
        total = squares = 0.0
        for bucket, count in self.buckets.items():
            seconds = min(limit, MIDDLES[bucket])
            total += seconds * count
            squares += seconds * seconds * count
        mean = total / self.count
        return mean, squares / self.count / mean**2 - 1

    def quantile(self, part: float) -> float | None:
        """The upper bound of the bucket that holds it."""
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= part * self.count:
                return SHORTEST * GROWTH**bucket
        return None


async def observe(client: QueueClient, queue: str, times: ServiceTimes) -> None:
    """Add completions to what is known of a queue."""
    if not times.count:
        return
    arguments: list[Argument] = [times.count, times.milliseconds, len(times.kinds)]
    for kind, (count, milliseconds) in times.kinds.items():
        arguments += (kind, count, milliseconds)
    for bucket, count in times.buckets.items():
        arguments += (bucket, count)
    await client.run(queue, "observe", arguments)
