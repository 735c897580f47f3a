"""What comes: when each job arrives and how long it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

KIND: Final = "job"
"""Of jobs whose trace names no kinds."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs in the order in which they arrive; times in seconds from the trace's beginning.

    `announced` are arrivals that are known before: jobs that were scheduled. They are among
    `arrivals`, too. `kinds` names each job's kind, or is empty.
    """

    name: str
    seconds: float
    arrivals: Sequence[float]
    services: Sequence[float]
    announced: Sequence[float] = ()
    kinds: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.arrivals) != len(self.services):
            raise ValueError("each job needs an arrival and a service time")
        if self.kinds and len(self.kinds) != len(self.arrivals):
            raise ValueError("either each job has a kind, or none has")

    @property
    def work(self) -> float:
        """Seconds of service in all."""
        return sum(self.services)

    def kind(self, job: int) -> str:
        return self.kinds[job] if self.kinds else KIND
