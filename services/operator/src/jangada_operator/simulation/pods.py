"""A replica of a simulation, and the clock that all of them share."""

from typing import Final

from jangada_operator.simulation.trace import KIND, Trace
from jangada_queue.policy.observation import Running, Stage

ENDLESS: Final = float("inf")
SERVING: Final = frozenset({Stage.STARTING, Stage.READY})


class Clock:
    """The simulated time, in seconds since the trace began."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 0.0


class Pod:
    """One replica; policies see it as a `Replica`.

    `jobs` says since when it has run each job that it holds. `worked` is the time that its slots
    were busy, of jobs that have ended.
    """

    __slots__ = (
        "_clock",
        "_trace",
        "born",
        "drained_at",
        "epoch",
        "id",
        "jobs",
        "ready_at",
        "slots",
        "stage",
        "worked",
    )

    def __init__(self, trace: Trace, clock: Clock, number: int, *, ready_at: float) -> None:
        self._clock = clock
        self._trace = trace
        self.id = f"{number:06}"
        self.born = clock.now
        self.ready_at = ready_at
        self.slots = 0
        self.stage = Stage.STARTING
        self.jobs: dict[int, float] = {}
        self.drained_at = ENDLESS
        self.worked = 0.0
        self.epoch = 0

    @property
    def age(self) -> float:
        return self._clock.now - self.born

    @property
    def held(self) -> int:
        return len(self.jobs)

    @property
    def running(self) -> list[Running]:
        now, kinds = self._clock.now, self._trace.kinds
        if not kinds:
            return [Running(KIND, now - since) for since in self.jobs.values()]
        return [Running(kinds[job], now - since) for job, since in self.jobs.items()]

    @property
    def drained_for(self) -> float:
        return max(0.0, self._clock.now - self.drained_at)

    @property
    def is_serving(self) -> bool:
        return self.stage in SERVING

    @property
    def busy_seconds(self) -> float:
        """The time that its slots were busy, up to now."""
        now = self._clock.now
        return self.worked + sum(now - since for since in self.jobs.values())
