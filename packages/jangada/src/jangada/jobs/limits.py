"""How many jobs of a kind may run at once, and how many may start in a while.

They are declared on the arguments of the kind, hold over all workers, and are kept exactly: by
the grant, under a lock (docs/queue-protocol.md). A job over a limit waits and keeps nobody waiting.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

SHORTEST_PERIOD: Final = timedelta(milliseconds=100)
LONGEST_PERIOD: Final = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` jobs of the kind run at once, and at most `per_key` of one tenant and key.

    `key` makes the key of a job from its arguments, unless it is given when the job is enqueued; a
    job without a key has the empty one, so `per_key` alone limits each tenant.
    """

    limit: int | None = None
    per_key: int | None = None
    key: Callable[[Any], str] | None = None

    def __post_init__(self) -> None:
        numbers = [number for number in (self.limit, self.per_key) if number is not None]
        if not numbers or min(numbers) < 1:
            raise ValueError("a concurrency has a limit, a limit per key or both, 1 at least")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `starts` of the kind in any stretch of time as long as `per`.

    A retry is a start too. With `per_tenant` each tenant has a limit of its own.
    """

    starts: int
    per: timedelta
    per_tenant: bool = False

    def __post_init__(self) -> None:
        if self.starts < 1 or not SHORTEST_PERIOD <= self.per <= LONGEST_PERIOD:
            raise ValueError("a rate limit has 1 start at least, in 100 ms to 31 days")
