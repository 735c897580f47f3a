"""The decision: how many replicas, which of them drain, and why."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from jangada_queue.policy.draining import bounded, leaving, returning
from jangada_queue.policy.history import History, needed, observed
from jangada_queue.policy.loads import Crew, Demand, crew_of, demand_of
from jangada_queue.policy.observation import Observation, Signals
from jangada_queue.policy.staffing import Aim, Load, Need, needs
from jangada_queue.policy.wanted import OnDeadline, Wanted

ENOUGH: Final = Aim(late=0.05, more=1.0)
"""As long as a pool serves this it isn't enlarged."""

AMPLE: Final = Aim(late=0.02, more=1.05)
"""It is enlarged to this, and reduced to it: between the two lies what chance does to a load."""

LOOK_AGAIN: Final = 60.0
BUSY_PART: Final = 4
"""A quarter of the replicas may drain at once that still run something."""

TOLERANCE: Final = 0.1
DEVIATIONS: Final = 2.0
"""A stream's need may differ by a tenth, or by so many standard deviations of its jobs that run."""

PATIENT: Final = 10
"""So many times longer than usual a size stays that isn't needed, but may be again by chance."""

HAIR: Final = 1e-9


class Reason(StrEnum):
    """What decided the size."""

    PAUSED = "Paused"
    STALE = "SignalsStale"
    BACKLOG = "Backlog"
    ARRIVALS = "Arrivals"
    DUE_SOON = "DueSoon"
    FLOOR = "Floor"
    COOLING = "Cooling"
    SURPLUS = "Surplus"
    STEADY = "Steady"
    IDLE = "Idle"


class Limit(StrEnum):
    """What kept a pool from the size that it needs."""

    MAXIMUM = "Maximum"
    MINIMUM = "Minimum"
    STARTING = "Starting"
    DRAINING = "Draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now; nothing of it is lost when it isn't done, because the next one repeats it.

    `size` is how many replicas should serve. `replicas` is what to ask the cluster for: never less
    than was asked for already, because a pool shrinks only by those that were found empty. `drain`
    names all that are to drain now, `undrain` those that aren't to any more, `interrupt` those
    whose time to drain is over. `next_check` is when it changes though nothing else does.
    """

    size: int
    replicas: int
    drain: tuple[str, ...] = ()
    undrain: tuple[str, ...] = ()
    interrupt: tuple[str, ...] = ()
    reason: Reason
    limited_by: Limit | None = None
    message: str
    inputs: Mapping[str, float]
    next_check: float
    history: History


@dataclass(frozen=True, slots=True)
class _Case:
    """All that a decision is made from."""

    wanted: Wanted
    observation: Observation
    crew: Crew
    history: History
    now: float


@dataclass(frozen=True, slots=True)
class _Size:
    size: int
    reason: Reason
    message: str
    limited_by: Limit | None = None
    inputs: Mapping[str, float] = field(default_factory=dict)


def decide(wanted: Wanted, observation: Observation, history: History, now: float) -> Decision:
    """The size that meets the objective, and the steps to it. `now` in seconds since the epoch."""
    crew = crew_of(observation, wanted)
    case = _Case(wanted, observation, crew, observed(history, observation, now), now)
    if wanted.is_paused:
        text = f"The pool is paused, and stays at {crew.size}."
        return _undrained(case, _Size(crew.size, Reason.PAUSED, text))
    if observation.signals is None:
        return _held(case)
    return _sized(case, observation.signals)


def _undrained(case: _Case, found: _Size) -> Decision:
    back = tuple(each.id for each in case.crew.draining)
    return _decision(case, found, undrain=back)


def _held(case: _Case) -> Decision:
    """Without signals nobody leaves. Flags can't be set either: they are left to end."""
    age = case.observation.signals_age
    since = "were never seen" if age is None else f"are {age:.0f} s old"
    size = max(case.crew.size, case.wanted.floor(case.now))
    text = f"Signals {since}: the pool stays at {size}."
    return _grown(case, _Size(size, Reason.STALE, text))


def _sized(case: _Case, signals: Signals) -> Decision:
    demand = demand_of(signals, case.crew, case.history, case.wanted, now=case.now)
    ample = needs(demand.load, AMPLE)
    least = 1 if signals.backlog or signals.in_flight or demand.due else 0
    wish = max(least, _replicas(ample.slots, case.crew))
    enough = max(least, _replicas(needs(demand.load, ENOUGH).slots, case.crew))
    history = needed(case.history, wish, case.now, PATIENT * _after(case))
    case = replace(case, history=history)
    is_short = enough > case.crew.size and not demand.is_learning
    found = _enlarged(case, wish, ample, demand) if is_short else _kept(case, wish, demand.load)
    if demand.held_back:
        text = f"{demand.held_back} wait beside idle slots: for a limit, or who knows their kind."
        found = replace(found, message=f"{found.message} {text}")
    inputs = _inputs(case, signals, demand, ample)
    found = replace(_within_limits(case, found), inputs=inputs)
    return _grown(case, found) if found.size >= case.crew.size else _shrunk(case, found, signals)


def _replicas(slots: float, crew: Crew) -> int:
    return math.ceil(slots / crew.slots - HAIR)


def _after(case: _Case) -> float:
    return case.wanted.scale_down.after.total_seconds()


def _enlarged(case: _Case, wish: int, ample: Need, demand: Demand) -> _Size:
    load = demand.load
    told = f"{ample.slots:.1f} slots, {case.crew.slots:.4g} a replica: {wish}"
    if ample.stream >= ample.backlog:
        text = f"{load.rate:.4g} jobs/s of {load.service:.3g} s need {told}."
        return _Size(wish, Reason.ARRIVALS, text)
    jobs = load.backlog + load.occupied
    if demand.due > load.rate * load.horizon:
        text = f"{demand.due:.0f} jobs fall due, {jobs:.0f} will want to run: {told}."
        return _Size(wish, Reason.DUE_SOON, text)
    text = f"{jobs:.0f} jobs of {load.service:.3g} s want to start within {load.horizon:.3g} s"
    return _Size(wish, Reason.BACKLOG, f"{text}: {told}.")


def _kept(case: _Case, wish: int, load: Load) -> _Size:
    """Nobody is missing: whoever wasn't needed for long enough goes.

    What chance does to a stream of jobs isn't followed down at once: it would be back.
    """
    size, after = case.crew.size, _after(case)
    lately = case.history.most_needed(case.now - after)
    if wish >= size:
        reason = Reason.STEADY if size else Reason.IDLE
        return _Size(size, reason, f"{size} are enough.")
    chance = _chance(load, case.crew)
    for most, seconds in ((lately + chance, after), (lately, PATIENT * after)):
        needed_then = case.history.most_needed(case.now - seconds)
        if most < size and needed_then < size and _is_watched(case, seconds):
            text = f"No more than {needed_then} of {size} were needed for {seconds:.0f} s."
            return _Size(needed_then, Reason.SURPLUS, text)
    aim = case.history.aim
    if aim is not None and wish <= aim < size:
        return _Size(aim, Reason.SURPLUS, f"{aim} of {size} are enough, as before.")
    text = f"{wish} are needed now; up to {lately} were within {after:.0f} s."
    return _Size(size, Reason.COOLING, text)


def _chance(load: Load, crew: Crew) -> float:
    """By how many replicas the need of a steady stream goes up and down by itself."""
    if not load.rate:
        return 0.0
    deviation = math.sqrt(load.rate * load.service)
    return max(crew.size * TOLERANCE, DEVIATIONS * deviation / crew.slots)


def _is_watched(case: _Case, seconds: float) -> bool:
    since = case.history.watched_since
    return since is not None and case.now - since >= seconds


def _within_limits(case: _Case, found: _Size) -> _Size:
    wanted = case.wanted
    floor = wanted.floor(case.now)
    if found.size > wanted.most:
        text = f"{found.message} At most {wanted.most} are allowed."
        return replace(found, size=wanted.most, message=text, limited_by=Limit.MAXIMUM)
    if found.size >= floor:
        return found
    text = f"{found.message} At least {floor} are wanted at this time."
    reason = Reason.FLOOR if case.crew.size < floor else found.reason
    return _Size(floor, reason, text, limited_by=Limit.MINIMUM)


def _grown(case: _Case, found: _Size) -> Decision:
    """Those that drain come back before others are started: they are warm."""
    crew, wanted = case.crew, case.wanted
    back = returning(crew.draining, found.size - crew.size)
    fresh = found.size - crew.size - len(back)
    room = wanted.most - crew.size - len(crew.draining) - crew.committed
    if wanted.most_starting is not None:
        room = min(room, wanted.most_starting - crew.starting)
    started = max(0, min(fresh, room))
    limit = found.limited_by if started == fresh else Limit.STARTING
    stay = {each.id for each in back}
    return _decision(
        case,
        replace(found, limited_by=limit),
        fresh=started,
        drain=tuple(each.id for each in crew.draining if each.id not in stay),
        undrain=tuple(each.id for each in back),
    )


def _shrunk(case: _Case, found: _Size, signals: Signals) -> Decision:
    crew = case.crew
    many = max(0, len(crew.serving) - found.size)
    surplus = leaving(crew.serving, many, signals.kinds)
    busy = sum(each.held > 0 for each in crew.draining)
    most_busy = case.wanted.scale_down.most_draining
    if most_busy is None:
        most_busy = max(1, crew.size // BUSY_PART)
    chosen = bounded(surplus, busy, most_busy)
    limit = found.limited_by if len(chosen) == len(surplus) else Limit.DRAINING
    drain = tuple(each.id for each in (*crew.draining, *chosen))
    return _decision(case, replace(found, limited_by=limit), drain=drain)


def _decision(
    case: _Case,
    found: _Size,
    *,
    fresh: int = 0,
    drain: tuple[str, ...] = (),
    undrain: tuple[str, ...] = (),
) -> Decision:
    return Decision(
        size=found.size,
        replicas=case.observation.replicas + fresh,
        drain=drain,
        undrain=undrain,
        interrupt=_overdue(case, drain),
        reason=found.reason,
        limited_by=found.limited_by,
        message=found.message,
        inputs=found.inputs,
        next_check=_next_check(case),
        history=replace(case.history, aim=_aim(case, found)),
    )


def _aim(case: _Case, found: _Size) -> int | None:
    """What is begun is gone on with: chance is asked once, not at each step."""
    is_reducing = found.reason is Reason.SURPLUS and found.size < case.crew.size
    return found.size if is_reducing else None


def _overdue(case: _Case, drain: tuple[str, ...]) -> tuple[str, ...]:
    """Those that still hold something when the time for it is over, where that ends it."""
    scale_down = case.wanted.scale_down
    if scale_down.on_deadline is OnDeadline.WAIT:
        return ()
    deadline = scale_down.drain_deadline.total_seconds()
    overdue = [each for each in case.crew.draining if each.held and each.drained_for >= deadline]
    return tuple(each.id for each in overdue if each.id in drain)


def _next_check(case: _Case) -> float:
    """When a floor changes or a size may have been unneeded for long enough; else in a minute."""
    moments = [case.now + LOOK_AGAIN]
    if (floor := case.wanted.floor_changes_at(case.now)) is not None:
        moments.append(floor)
    since = case.history.watched_since
    for start in (since, *(at for at, _ in case.history.needs)):
        if start is not None:
            moments += [start + _after(case), start + PATIENT * _after(case)]
    return min(moment for moment in moments if moment > case.now)


def _inputs(case: _Case, signals: Signals, demand: Demand, need: Need) -> Mapping[str, float]:
    """The figures behind a size, as people are shown them."""
    load = demand.load
    return {
        "arrival_per_second": load.rate,
        "service_seconds": load.service,
        "service_variation": load.variation,
        "backlog": signals.backlog,
        "backlog_expected": load.backlog,
        "held_back": demand.held_back,
        "in_flight": signals.in_flight,
        "running": load.running,
        "occupied": load.occupied,
        "stuck": load.stuck,
        "due_soon": demand.due,
        "oldest_wait_seconds": signals.oldest_wait,
        "slots_per_replica": case.crew.slots,
        "slots_for_arrivals": need.stream,
        "slots_for_backlog": need.backlog,
        "serving": case.crew.size,
        "starting": case.crew.starting,
        "draining": len(case.crew.draining),
        "start_seconds": case.history.start_seconds,
    }
