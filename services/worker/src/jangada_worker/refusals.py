"""Queues that Valkey refuses something of: each waits by itself, and keeps no other waiting."""

import math
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from jangada_queue.patience import Pauses


@dataclass(slots=True)
class _Wait:
    pauses: Pauses = field(default_factory=Pauses)
    until: float = -math.inf


class Refusals:
    """Which queues wait, each with pauses that double while it is refused again and again."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}

    @property
    def queues(self) -> list[str]:
        """All that were refused last, whether they wait or are to be tried again now."""
        return sorted(self._waits.copy())

    @property
    def until(self) -> float:
        """When the first of them is to be tried again, by the monotonic clock; never: infinite."""
        return min((wait.until for wait in self._waits.values()), default=math.inf)

    def add(self, queue: str) -> bool:
        """Let a queue wait; answers whether it was of use before, the time to tell."""
        is_new = queue not in self._waits
        wait = self._waits.setdefault(queue, _Wait())
        wait.until = time.monotonic() + wait.pauses.take()
        return is_new

    def discard(self, queue: str) -> None:
        """It is of use again."""
        self._waits.pop(queue, None)

    def keep(self, queues: Collection[str]) -> None:
        """Forget all others: nothing waits in them that could be refused."""
        for queue in self._waits.keys() - queues:
            del self._waits[queue]

    def without(self, queues: Collection[str]) -> list[str]:
        """Those of the queues that don't wait, in order."""
        now = time.monotonic()
        return sorted(q for q in queues if q not in self._waits or self._waits[q].until <= now)
