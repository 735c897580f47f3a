"""From what is seen to what is asked of the slots."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from jangada_queue.policy.history import History
from jangada_queue.policy.observation import Observation, Replica, Signals, Stage
from jangada_queue.policy.staffing import Load
from jangada_queue.policy.wanted import Wanted
from jangada_queue.service_times import ServiceTimes

UNKNOWN_SERVICE: Final = 1.0
"""Seconds that a job is taken to need before any has ended."""

STUCK: Final = 3.0
"""A job that runs for so many times the mean, and longer than the objective, keeps a slot."""

SHORTEST: Final = 1.0
"""Nothing is planned for less than a second: signals come once in one."""

A_STREAM: Final = 1.0
"""Jobs that come more rarely than one in `scale_down.after` are no reason to keep a replica."""

SHARED: Final = frozenset({Stage.STARTING, Stage.READY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The replicas by what can be done with them. `missing` were asked for and aren't there yet."""

    serving: Sequence[Replica]
    draining: Sequence[Replica]
    committed: int
    missing: int
    slots: float
    """Of one replica, on average."""

    @property
    def size(self) -> int:
        """How many serve, or will."""
        return len(self.serving) + self.missing

    @property
    def starting(self) -> int:
        return self.missing + sum(each.stage is Stage.STARTING for each in self.serving)


def crew_of(observation: Observation, wanted: Wanted) -> Crew:
    serving = [each for each in observation.pool if each.stage in SHARED]
    draining = [each for each in observation.pool if each.stage is Stage.DRAINING]
    committed = sum(each.stage is Stage.COMMITTED for each in observation.pool)
    there = len(serving) + len(draining) + committed
    known = [each.slots for each in (*serving, *draining) if each.slots]
    return Crew(
        serving=serving,
        draining=draining,
        committed=committed,
        missing=max(0, observation.replicas - there),
        slots=sum(known) / len(known) if known else wanted.slots,
    )


class Demand(NamedTuple):
    """What the slots will be asked for when replicas could be there that are started now.

    `due` is how many jobs will have fallen due by then.
    """

    load: Load
    due: float


def demand_of(
    signals: Signals, crew: Crew, history: History, wanted: Wanted, *, now: float
) -> Demand:
    within = wanted.start_within.total_seconds()
    lead = max(SHORTEST, history.start_seconds)
    mean = history.service.mean() or UNKNOWN_SERVICE
    is_stuck_after = max(within, STUCK * mean)
    service, variation = _usual(history.service, is_stuck_after)
    stuck = sum(
        each.seconds > is_stuck_after for replica in crew.serving for each in replica.running
    )
    leaving = sum(each.held for each in crew.draining)
    running = max(0, signals.in_flight - leaving - stuck)
    rate = history.arrival_rate(signals, now)
    if rate * wanted.scale_down.after.total_seconds() < A_STREAM:
        rate = 0.0
    due = _due_within(signals.due_soon, lead)
    started = sum(_can_start(each, crew.slots, lead, service) for each in crew.serving)
    started += crew.missing * crew.slots
    backlog = signals.backlog + max(rate * lead, due) + running + stuck - started
    load = Load(
        rate=rate,
        service=service,
        variation=variation,
        running=running,
        stuck=stuck,
        backlog=max(0.0, backlog),
        horizon=max(within - lead, lead, SHORTEST),
        within=within,
    )
    return Demand(load, due)


def _usual(times: ServiceTimes, limit: float) -> tuple[float, float]:
    """Mean and variation of the times that jobs spend before they count as stuck."""
    if not times.count:
        return UNKNOWN_SERVICE, 1.0
    return times.capped(limit)


def _due_within(due_soon: Sequence[tuple[float, int]], seconds: float) -> float:
    """By straight lines between what is known."""
    before, counted = 0.0, 0
    for horizon, count in due_soon:
        if horizon >= seconds:
            return counted + (count - counted) * (seconds - before) / (horizon - before)
        before, counted = horizon, count
    return counted


def _can_start(replica: Replica, slots: float, lead: float, service: float) -> float:
    """How many jobs it has slots for within the lead, those that it runs now included."""
    if replica.stage is Stage.STARTING:
        return slots * (1 + min(replica.age, lead) / service)
    return (replica.slots or slots) * (1 + lead / service)
