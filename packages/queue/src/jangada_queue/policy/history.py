"""What the policy remembers from one decision to the next.

It is small, immutable, and may be lost: a pool whose history begins anew holds its size for as long
as a size must have been unneeded before it is given up.
"""

import math
from collections.abc import Iterable
from copy import replace
from typing import Final, NamedTuple

from jangada_queue.policy.observation import Observation, Replica, Signals, Stage
from jangada_queue.service_times import ServiceTimes

COUNTED: Final = 15.0
"""For so many seconds arrivals are counted one by one."""

SURE: Final = 4.0
"""Standard deviations of a count that are taken for chance: fifteen windows a second are asked."""

MEMORY: Final = 300.0
"""Seconds after which what came counts for 1/e in the rate: service times are kept as long."""

START: Final = 10.0
"""Seconds that a replica takes to start, where none was seen to."""

STARTS: Final = 8
"""As many starts are remembered."""

type Seen = tuple[tuple[float, int], ...]
"""Moments and figures."""


UNKNOWN: Final = ServiceTimes()


class History(NamedTuple):
    """`needs` are the sizes that were needed, with those left out that a later one exceeds."""

    needs: Seen = ()
    streams: Seen = ()
    """The same of the sizes that arrivals alone needed."""

    watched_since: float | None = None
    """Since when sizes are known without a gap."""

    arrivals: Seen = ()
    rate: float | None = None
    """Jobs that come in a second."""

    starting: frozenset[str] = frozenset()
    starts: tuple[float, ...] = ()
    service: ServiceTimes = UNKNOWN
    """The last that were known: queues forget theirs after ten minutes."""

    last_arrival: float | None = None
    """When a job was last seen to have come."""

    rate_then: float = 0.0
    """The rate of that moment."""

    waited_at: float | None = None
    """When jobs were last seen to wait for slots."""

    reduced_at: float | None = None
    """When the pool was last being reduced."""

    regretted_at: float | None = None
    """When a stream last needed what had been given up shortly before."""

    aim: int | None = None
    """The size that the pool is being reduced to, which may take several steps."""

    idle_since: float | None = None
    """Since when jobs wait though at least half of the slots are free."""

    @property
    def start_seconds(self) -> float:
        """How long a replica takes to start: four of five of the last ones took no longer."""
        if not self.starts:
            return START
        return sorted(self.starts)[math.ceil(0.8 * len(self.starts)) - 1]

    def most_needed(self, since: float) -> int:
        """The largest size that was needed since then."""
        return _most(self.needs, since)

    def most_streamed(self, since: float) -> int:
        """The largest size that arrivals needed since then."""
        return _most(self.streams, since)


def observed(history: History, observation: Observation, now: float) -> History:
    """The history with what is seen now. Absent signals leave a gap."""
    signals = observation.signals
    seen = _with_starts(history, observation.pool)
    if signals is None:
        return replace(
            seen,
            needs=(),
            streams=(),
            watched_since=None,
            arrivals=(),
            rate=None,
            aim=None,
            idle_since=None,
        )
    arrivals = _with_arrivals(seen.arrivals, signals.arrived, now)
    known = signals.service if signals.service.count else seen.service
    rate, last = _rate(seen, arrivals, signals), _last_arrival(seen, signals.arrived, now)
    return replace(
        seen,
        watched_since=now if seen.watched_since is None else seen.watched_since,
        arrivals=arrivals,
        rate=rate,
        last_arrival=last,
        rate_then=rate if last == now else seen.rate_then,
        idle_since=_idle_since(seen, signals, observation.pool, now),
        service=known,
    )


def needed(
    history: History, size: int, streamed: int, *, now: float, after: float, is_waiting: bool
) -> History:
    """The history with what is needed now; what is older than `after` is forgotten."""
    return replace(
        history,
        needs=_with_size(history.needs, size, now, now - after),
        streams=_with_size(history.streams, streamed, now, now - after),
        waited_at=now if is_waiting else history.waited_at,
    )


def _with_size(sizes: Seen, size: int, now: float, since: float) -> Seen:
    kept = [each for each in sizes if each[0] >= since and each[1] > size]
    return (*kept, (now, size))


def _most(sizes: Seen, since: float) -> int:
    return next((size for at, size in sizes if at >= since), 0)


def _rate(history: History, arrivals: Seen, signals: Signals) -> float:
    """Per second: decayed over minutes, as far as what was counted lately allows it.

    A step in the load moves it within two looks, and chance hardly does. What the queue says, which
    forgets within a minute, is where it begins.
    """
    now, total = arrivals[-1]
    rate = signals.arrival_rate if history.rate is None else history.rate
    if len(arrivals) > 1 and now > (last := arrivals[-2])[0]:
        elapsed = now - last[0]
        rate += ((total - last[1]) / elapsed - rate) * -math.expm1(-elapsed / MEMORY)
    least, most = _bounds(arrivals, total, now)
    return min(max(rate, least), most)


def _bounds(arrivals: Seen, total: int, now: float) -> tuple[float, float]:
    """The least and the highest rate that what came lately can be explained with.

    Windows that end now grow for as long as they agree (as those of ADWIN do: Bifet and Gavaldà,
    2007): where a longer one contradicts the shorter, the load has changed in between. For the
    least rate each window's fullest interval is left out: one batch isn't a stream. Counts are
    compared by their roots, which vary by a half whatever is counted, even for counts of nothing
    (Anscombe, Biometrika 35, 1948).
    """
    least, most = 0.0, math.inf
    count, fullest, since, longest = 0, 0, now, 0.0
    for at, before in reversed(arrivals):
        if at >= since:
            continue
        came = total - before
        if came > fullest:
            fullest, longest = came, since - at
        count, total, since = count + came, before, at
        seconds = now - at
        high = (math.sqrt(count + 1) + SURE / 2) ** 2 / seconds
        root = math.sqrt(count - fullest) - SURE / 2
        low = root * root / (seconds - longest) if root > 0 else 0.0
        if low > most or high < least:
            break
        least, most = max(least, low), min(most, high)
    return least, most


def _last_arrival(history: History, total: int, now: float) -> float:
    before = history.arrivals[-1][1] if history.arrivals else total
    return now if history.last_arrival is None or total != before else history.last_arrival


def _with_arrivals(arrivals: Seen, total: int, now: float) -> Seen:
    if arrivals and total < arrivals[-1][1]:
        return ((now, total),)
    recent = tuple(each for each in arrivals if each[0] >= now - COUNTED)
    return (*recent, (now, total))


def _idle_since(
    history: History, signals: Signals, pool: Iterable[Replica], now: float
) -> float | None:
    if not signals.backlog:
        return None
    slots = held = 0
    for each in pool:
        if each.stage is Stage.READY:
            slots, held = slots + each.slots, held + each.held
    if not slots or 2 * held > slots:
        return None
    return now if history.idle_since is None else history.idle_since


def _with_starts(history: History, pool: Iterable[Replica]) -> History:
    starting = frozenset(each.id for each in pool if each.stage is Stage.STARTING)
    if starting == history.starting:
        return history
    took = [each.age for each in pool if each.stage is Stage.READY and each.id in history.starting]
    starts = (*history.starts, *took)[-STARTS:]
    return replace(history, starting=starting, starts=starts)
