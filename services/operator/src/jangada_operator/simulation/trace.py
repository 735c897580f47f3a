"""What comes: when each job arrives and how long it takes."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs in the order in which they arrive; times in seconds from the trace's beginning.

    `announced` are arrivals that are known before: jobs that were scheduled. They are among
    `arrivals`, too.
    """

    name: str
    seconds: float
    arrivals: Sequence[float]
    services: Sequence[float]
    announced: Sequence[float] = ()

    def __post_init__(self) -> None:
        if len(self.arrivals) != len(self.services):
            raise ValueError("each job needs an arrival and a service time")

    @property
    def work(self) -> float:
        """Seconds of service in all."""
        return sum(self.services)
