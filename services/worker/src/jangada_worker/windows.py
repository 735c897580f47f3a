"""How many messages a dispatcher keeps ready."""

import time
from collections import Counter, defaultdict
from typing import Final

from jangada.jobs_settings import JobsSettings
from jangada_queue.rates import DecayedRate

MEMORY: Final = 1.0
"""For how many seconds the pace of a queue is remembered."""

MOST_TIMES: Final = 4
"""The window holds at most so many times the slots: jobs may take longer than those before them."""


class Windows:
    """The window of each queue, by its workers' slots and by the pace at which they take lately.

    A window as large as the slots makes a round due whenever half of them are free again. Where
    jobs are short that is most of the work, so there it holds what is taken in `window_ahead`.
    """

    def __init__(self, settings: JobsSettings) -> None:
        self._least = settings.min_window
        self._ahead = settings.window_ahead.total_seconds()
        self._published: Counter[str] = Counter()
        self._rates: defaultdict[str, DecayedRate] = defaultdict(lambda: DecayedRate(MEMORY))

    def size(self, queue: str, slots: int) -> int:
        """How many messages may wait in a queue whose workers have so many slots."""
        ahead = int(self._rates[queue].per_second * self._ahead)
        return max(self._least, slots, min(ahead, MOST_TIMES * slots))

    def count(self, queue: str, published: int) -> None:
        """So many were published in a round, which in the long run is how many were taken."""
        self._published[queue] += published
        self._rates[queue].see(self._published[queue], time.monotonic())
