"""The decision: how many replicas, which of them drain, and why."""

import math
from collections.abc import Mapping, Sequence
from copy import replace
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from jangada_queue.policy.draining import bounded, exchanged, instead, leaving, returning
from jangada_queue.policy.history import History, needed, observed
from jangada_queue.policy.inputs import inputs_of
from jangada_queue.policy.loads import Crew, Demand, crew_of, demand_of
from jangada_queue.policy.observation import Observation, Replica, Signals
from jangada_queue.policy.staffing import Load, Need, needs
from jangada_queue.policy.wanted import OnDeadline, Wanted

LATE: Final = 0.05
"""The part of a stream's jobs that may start too late."""

LOOK_AGAIN: Final = 60.0
BUSY_PART: Final = 4
"""A quarter of the replicas may drain at once that still run something."""

TOLERANCE: Final = 0.1
DEVIATIONS: Final = 2.0
"""A stream's need may differ by a tenth, or by so many standard deviations of its jobs that run."""

PATIENT: Final = 10
"""So many times longer than usual a size stays that isn't needed, but may be again by chance."""

REGRETFUL: Final = 5
"""So many times longer a size stays that was given up too soon before."""

HAIR: Final = 1e-9


class Reason(StrEnum):
    """What decided the size."""

    PAUSED = "Paused"
    STALE = "SignalsStale"
    BACKLOG = "Backlog"
    ARRIVALS = "Arrivals"
    DUE_SOON = "DueSoon"
    FLOOR = "Floor"
    MINIMUM = "Minimum"
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
    than there are, because a pool shrinks only by those that were found empty; it is less than was
    asked for already only by those that never came. `drain` names all that are to drain now,
    `undrain` those that aren't to any more, `interrupt` those whose time to drain is over.
    `next_check` is when it changes though nothing else does.
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

    def limited(self, limit: Limit | None) -> "_Size":
        return self if limit is self.limited_by else replace(self, limited_by=limit)


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
    need = needs(demand.load, LATE)
    least = 1 if signals.backlog or signals.in_flight or demand.due else 0
    wish = max(least, _replicas(need.slots, case.crew))
    is_short = wish > case.crew.size and not demand.is_learning
    is_waiting = signals.backlog > demand.held_back
    history = _remembered(case, need, demand, wish=wish, is_short=is_short, is_waiting=is_waiting)
    case = _Case(case.wanted, case.observation, case.crew, history, case.now)
    found = _enlarged(case, wish, need, demand) if is_short else _kept(case, wish, demand.load)
    if demand.held_back:
        text = f"{demand.held_back} wait beside idle slots: for a limit, or who knows their kind."
        found = replace(found, message=f"{found.message} {text}")
    inputs = inputs_of(case.crew, signals, demand, need, start_seconds=history.start_seconds)
    found = _within_limits(case, found)
    if found.size < case.crew.size:
        return _shrunk(case, found, signals, inputs)
    return _grown(case, found, inputs)


def _remembered(
    case: _Case, need: Need, demand: Demand, *, wish: int, is_short: bool, is_waiting: bool
) -> History:
    """The history with what is needed now, and whether a reduction turns out to have been wrong."""
    now, load = case.now, demand.load
    streamed = _replicas(need.stuck + need.stream, case.crew) if load.rate else 0
    found = needed(
        case.history,
        wish,
        streamed,
        now=now,
        after=PATIENT * _after(case),
        is_waiting=is_waiting,
    )
    by_chance = load.rate > 0 and wish - case.crew.size <= max(1.0, _chance(load, case.crew))
    if is_short and by_chance and _is_recent(case, found.reduced_at):
        found = replace(found, regretted_at=now)
    return found


def _is_recent(case: _Case, at: float | None) -> bool:
    """Within the time that a size stays which was given up too soon before."""
    return at is not None and case.now - at < REGRETFUL * _after(case)


def _replicas(slots: float, crew: Crew) -> int:
    return math.ceil(slots / crew.slots - HAIR)


def _after(case: _Case) -> float:
    return case.wanted.scale_down.after.total_seconds()


def _enlarged(case: _Case, wish: int, need: Need, demand: Demand) -> _Size:
    load = demand.load
    told = f"{need.slots:.1f} slots, {case.crew.slots:.4g} a replica: {wish}"
    if need.stream >= need.backlog:
        text = f"{load.rate:.4g} jobs/s of {load.service:.3g} s need {told}."
        return _Size(wish, Reason.ARRIVALS, text)
    jobs = load.backlog + load.occupied
    if demand.due > load.rate * load.horizon:
        text = (
            f"About {demand.due:.0f} jobs fall due before others could be there, and an estimated "
            f"{jobs:.0f} would run or wait then: {told}."
        )
        return _Size(wish, Reason.DUE_SOON, text)
    text = (
        f"An estimated {jobs:.0f} jobs of {load.service:.3g} s would run or wait when others could "
        f"be there, and are to start within {load.horizon:.3g} s: {told}."
    )
    return _Size(wish, Reason.BACKLOG, text)


def _kept(case: _Case, wish: int, load: Load) -> _Size:
    """Nobody is missing: whoever wasn't needed for long enough goes.

    What chance does to a stream of jobs isn't followed down at once: it would be back. Where it was
    followed and came back, the same has to last longer the next time, be it a single replica.
    """
    size, after = case.crew.size, _after(case)
    lately = _needed_within(case, after)
    if wish >= size:
        reason = Reason.STEADY if size else Reason.IDLE
        return _Size(size, reason, f"{size} are enough.")
    if size == case.wanted.floor(case.now):
        text = f"{wish} would be enough; at least {size} are wanted at this time."
        return _Size(size, Reason.MINIMUM, text, limited_by=Limit.MINIMUM)
    chance, patient = _chance(load, case.crew), PATIENT * after
    if _is_recent(case, case.history.regretted_at):
        chance, patient = max(1.0, chance), REGRETFUL * after
    for most, seconds in ((lately + chance, after), (lately, patient)):
        needed_then = _needed_within(case, seconds)
        if most < size and needed_then < size and _is_watched(case, seconds):
            text = f"{needed_then} of {size} are enough for the arrivals of {seconds:.0f} s."
            return _Size(needed_then, Reason.SURPLUS, text)
    aim = case.history.aim
    if aim is not None and wish <= aim < size:
        return _Size(aim, Reason.SURPLUS, f"{aim} of {size} are enough, as before.")
    text = f"{wish} are needed now; up to {lately} were within {after:.0f} s."
    return _Size(size, Reason.COOLING, text)


def _needed_within(case: _Case, seconds: float) -> int:
    """What arrivals needed within the time, and what only a backlog needs.

    For a backlog that is gone nobody is kept for longer than starting them again would take: that
    costs at most twice what it would cost to know when the next one comes (Karlin et al.,
    Algorithmica 3, 1988; for servers Gandhi et al., ACM TOCS 30, 2012).
    """
    history, now = case.history, case.now
    brief = min(seconds, history.start_seconds)
    if _is_recent(case, history.regretted_at):
        brief = seconds
    elif history.waited_at is not None and now - history.waited_at < brief:
        brief = _after(case)
    return max(history.most_streamed(now - seconds), history.most_needed(now - brief))


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


def _grown(case: _Case, found: _Size, inputs: Mapping[str, float] | None = None) -> Decision:
    """Those that drain come back before others are started, or waited for: they are warm."""
    crew, wanted = case.crew, case.wanted
    back = returning(crew.draining, found.size - len(crew.serving))
    fresh = max(0, found.size - crew.size - len(back))
    room = wanted.most - crew.size - len(crew.draining) - crew.committed
    if wanted.most_starting is not None:
        room = min(room, wanted.most_starting - crew.starting)
    started = max(0, min(fresh, room))
    limit = found.limited_by if started == fresh else Limit.STARTING
    return _moved(case, found.limited(limit), inputs, fresh=started, back=back)


def _shrunk(case: _Case, found: _Size, signals: Signals, inputs: Mapping[str, float]) -> Decision:
    crew = case.crew
    many = max(0, len(crew.serving) - found.size)
    surplus = leaving(crew.serving, many, signals.kinds)
    most_busy = case.wanted.scale_down.most_draining
    if most_busy is None:
        most_busy = max(1, crew.size // BUSY_PART)
    chosen = bounded(surplus, sum(each.held > 0 for each in crew.draining), most_busy)
    limit = found.limited_by if len(chosen) == len(surplus) else Limit.DRAINING
    back = returning(crew.draining, found.size - len(crew.serving))
    # Of those that were asked for and aren't there nobody has to be drained.
    fresh = max(0, found.size - len(crew.serving) - len(back)) - crew.missing
    return _moved(case, found.limited(limit), inputs, fresh=fresh, back=back, chosen=chosen)


def _moved(
    case: _Case,
    found: _Size,
    inputs: Mapping[str, float] | None,
    *,
    fresh: int,
    back: Sequence[Replica],
    chosen: Sequence[Replica] = (),
) -> Decision:
    """With these back and those drained, and idle ones instead of busy ones."""
    signals, moved = case.observation.signals, {each.id for each in (*back, *chosen)}
    staying = [each for each in case.crew.serving if each.id not in moved]
    still = [each for each in case.crew.draining if each.id not in moved]
    # Without signals nobody is known to be idle.
    pairs = [] if signals is None else exchanged(staying, still, signals.kinds)
    drain = instead([*still, *chosen], pairs)
    undrain = (*(each.id for each in back), *(busy.id for _, busy in pairs))
    return _decision(case, found, inputs, fresh=fresh, drain=drain, undrain=undrain)


def _decision(
    case: _Case,
    found: _Size,
    inputs: Mapping[str, float] | None = None,
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
        inputs=inputs or {},
        next_check=_next_check(case),
        history=_aiming(case, found),
    )


def _aiming(case: _Case, found: _Size) -> History:
    """What is begun is gone on with: chance is asked once, not at each step."""
    if found.reason is Reason.SURPLUS and found.size < case.crew.size:
        return replace(case.history, aim=found.size, reduced_at=case.now)
    return case.history if case.history.aim is None else replace(case.history, aim=None)


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
    after = _after(case)
    brief = min(after, case.history.start_seconds)
    if since is not None:
        moments += [since + after, since + PATIENT * after]
    if case.history.waited_at is not None:
        moments.append(case.history.waited_at + brief)
    for start, _ in (*case.history.needs[:-1], *case.history.streams[:-1]):
        patient = (start + REGRETFUL * after, start + PATIENT * after)
        moments += (start + brief, start + after, *patient)
    return min(moment for moment in moments if moment > case.now)
