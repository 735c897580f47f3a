"""From what is seen to what is asked of the slots."""

import math
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

STUCK: Final = 10.0
"""A job that runs for so many times the mean, and longer than the objective, keeps a slot.

Where another waits for longer than the objective beside it, it does after one mean time already.
"""

SHORTEST: Final = 1.0
"""Nothing is planned for less than a second: signals come once in one."""

A_STREAM: Final = 1.0
"""Jobs that come more rarely than one in `scale_down.after` are no reason to keep a replica."""

OVER: Final = 10.0
"""A stream has ended when nothing comes for so many times the mean between two jobs.

By chance that happens once in 22,000 times.
"""

HELD_BACK: Final = 10.0
"""Jobs that wait for so many seconds beside idle slots aren't waiting for slots."""

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

    `due` is how many jobs will have fallen due by then; `held_back` are those that wait for
    something else than slots: a limit of their kind, or a worker that knows them. While
    `is_learning` nobody can tell how long jobs take, and the first ones that will show it haven't
    run for long enough.
    """

    load: Load
    due: float
    held_back: int
    is_learning: bool


def demand_of(
    signals: Signals, crew: Crew, history: History, wanted: Wanted, *, now: float
) -> Demand:
    within = wanted.start_within.total_seconds()
    lead = max(SHORTEST, history.start_seconds)
    is_held_back = _is_held_back(history, now)
    is_late = signals.oldest_wait > within and not is_held_back
    pace = _pace_of(history.service, crew, within, patience=1.0 if is_late else STUCK)
    rate = _stream(signals, history, wanted, now)
    due = _due_within(signals.due_soon, lead)
    leaving = sum(each.held for each in crew.draining)
    running = max(0, signals.in_flight - leaving - pace.stuck)
    held_back = signals.backlog if is_held_back else 0
    coming = max(rate * lead, due)
    asking = running + signals.backlog - held_back + coming
    room = _room(crew, pace, lead)
    backlog = max(0.0, asking - room.starts)
    stays = math.exp(-lead / pace.service)
    inside = (asking - coming) * stays + coming * pace.service / lead * (1 - stays)
    load = Load(
        rate=rate,
        service=pace.service,
        variation=pace.variation,
        running=running,
        occupied=min(room.slots, max(inside, backlog)),
        stuck=pace.stuck,
        backlog=backlog,
        within=within,
        horizon=horizon_of(within, lead),
        ahead=lead + within,
    )
    is_learning = pace.is_unknown and crew.size > 0 and pace.service <= UNKNOWN_SERVICE
    return Demand(load, due, held_back, is_learning)


def _is_held_back(history: History, now: float) -> bool:
    return history.idle_since is not None and now - history.idle_since >= HELD_BACK


def _stream(signals: Signals, history: History, wanted: Wanted, now: float) -> float:
    """The rate at which jobs come, if they still come, and often enough."""
    after = wanted.scale_down.after.total_seconds()
    silence = 0.0 if history.last_arrival is None else now - history.last_arrival
    if silence > after or silence * history.rate_then > OVER:
        return 0.0
    rate = signals.arrival_rate if history.rate is None else history.rate
    return rate if rate * after >= A_STREAM else 0.0


def horizon_of(within: float, lead: float) -> float:
    """How long a backlog may take: what is left of the objective, or as long as help does."""
    return max(within - lead, lead, SHORTEST)


class _Pace(NamedTuple):
    """How long jobs take, but for those that are stuck."""

    service: float
    variation: float
    stuck: int
    is_unknown: bool = False


def _pace_of(times: ServiceTimes, crew: Crew, within: float, *, patience: float) -> _Pace:
    ages = [each.seconds for replica in crew.serving for each in replica.running]
    mean = times.mean()
    if mean is None:
        # The likeliest mean of exponential times, were one of those that run to end just now.
        return _Pace(max(UNKNOWN_SERVICE, sum(ages)), 1.0, 0, is_unknown=True)
    limit = max(within, patience * mean)
    return _Pace(*times.capped(limit), sum(age > limit for age in ages))


class _Room(NamedTuple):
    """The slots that there are, and how many jobs can start in them within the lead.

    Those that run now are among the latter, those that are stuck are in neither.
    """

    slots: float
    starts: float


def _room(crew: Crew, pace: _Pace, lead: float) -> _Room:
    slots, turns = crew.missing * crew.slots - pace.stuck, -pace.stuck * lead
    for each in crew.serving:
        has = each.slots or crew.slots
        slots += has
        turns += has * (min(each.age, lead) if each.stage is Stage.STARTING else lead)
    return _Room(max(0.0, slots), max(0.0, slots + turns / pace.service))


def _due_within(due_soon: Sequence[tuple[float, int]], seconds: float) -> float:
    """By straight lines between what is known."""
    before, counted = 0.0, 0
    for horizon, count in due_soon:
        if horizon >= seconds:
            return counted + (count - counted) * (seconds - before) / (horizon - before)
        before, counted = horizon, count
    return counted
