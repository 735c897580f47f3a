"""How many messages a dispatcher keeps ready."""

import time
from collections import Counter, defaultdict
from typing import Final

from jangada.config import JobsSettings
from jangada_queue.rates import DecayedRate

MEMORY: Final = 1.0
"""For how many seconds the pace of a queue is remembered."""

LARGEST: Final = 1_000
"""Each round reads what is on offer."""


class Windows:
    """The window of each queue, by what its workers hold and by the pace at which they take.

    With one that holds no more than the slots a round is due whenever half of them are free again:
    where jobs are short, rounds are most of the work. Whoever comes new waits for what is ahead.
    """

    def __init__(self, settings: JobsSettings) -> None:
        self._least = settings.min_window
        self._ahead = settings.window_ahead.total_seconds()
        self._published: Counter[str] = Counter()
        self._rates: defaultdict[str, DecayedRate] = defaultdict(lambda: DecayedRate(MEMORY))

    def size(self, queue: str, slots: int) -> int:
        """How many messages may wait in a queue whose workers have so many slots."""
        ahead = min(LARGEST, int(self._rates[queue].per_second * self._ahead))
        return max(self._least, slots, ahead)

    def count(self, queue: str, published: int) -> None:
        """So many were published in a round: nothing more than were taken is, in the long run."""
        self._published[queue] += published
        self._rates[queue].see(self._published[queue], time.monotonic())
