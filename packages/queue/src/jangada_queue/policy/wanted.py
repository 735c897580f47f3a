"""What is wanted of a pool: its limits and its objective, as a `WorkerPool` says them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from jangada_queue.cron import Cron

LONGEST_FLOOR: Final = timedelta(days=7)


class OnDeadline(StrEnum):
    """What becomes of a worker that still runs something when its `drain_deadline` is over."""

    WAIT = "Wait"
    INTERRUPT = "Interrupt"


@dataclass(frozen=True, slots=True)
class Floor:
    """At least `least` replicas for `duration` from each fire of `cron` on."""

    cron: Cron
    duration: timedelta
    least: int

    def __post_init__(self) -> None:
        if not timedelta(0) < self.duration <= LONGEST_FLOOR:
            raise ValueError("a floor's duration must be more than nothing and at most 7 days")
        if self.least < 1:
            raise ValueError("a floor's minimum must be at least 1")

    def is_active(self, now: datetime) -> bool:
        return self.cron.next(now - self.duration) <= now

    def changes_at(self, now: datetime) -> datetime:
        """When it begins, or ends, next."""
        fire = self.cron.next(now - self.duration)
        return fire + self.duration if fire <= now else fire


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleDown:
    """How a pool shrinks.

    A size that arrivals haven't needed for all of `after` is given up; one that only a backlog
    needed, already when that is gone for as long as a replica takes to start. At most
    `most_draining` replicas that still run something are drained at once; None is a quarter of the
    pool. Idle ones don't count.
    """

    after: timedelta = timedelta(seconds=60)
    drain_deadline: timedelta = timedelta(hours=1)
    on_deadline: OnDeadline = OnDeadline.WAIT
    most_draining: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A pool as its owner wants it.

    `start_within` is the objective: a job starts so soon after it could. `slots` is how many jobs a
    replica runs at once, where none has said so yet. `most_starting` bounds how many replicas are
    starting at once; None is no bound but `most`.
    """

    most: int
    least: int = 0
    start_within: timedelta = timedelta(seconds=5)
    scale_down: ScaleDown = ScaleDown()
    most_starting: int | None = None
    slots: int = 10
    floors: tuple[Floor, ...] = ()
    is_paused: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ValueError("the minimum must be between 0 and the maximum")
        if self.start_within <= timedelta(0):
            raise ValueError("the objective must be a positive time")
        if self.slots < 1:
            raise ValueError("a replica needs a slot")

    def floor(self, now: float) -> int:
        """The least number of replicas at this moment; never above `most`."""
        if not self.floors:
            return self.least
        moment = datetime.fromtimestamp(now, UTC)
        active = [floor.least for floor in self.floors if floor.is_active(moment)]
        return min(self.most, max([self.least, *active]))

    def floor_changes_at(self, now: float) -> float | None:
        """When a floor begins or ends next."""
        if not self.floors:
            return None
        moment = datetime.fromtimestamp(now, UTC)
        return min(floor.changes_at(moment).timestamp() for floor in self.floors)
