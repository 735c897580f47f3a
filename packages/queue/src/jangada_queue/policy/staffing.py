"""How many slots a load needs: queueing theory, no more of it than helps.

- Jobs that come at random to `c` slots wait longer than `t` with the probability that Erlang's C
  formula gives (Erlang, 1917; here by the recursion for his B formula). Above `EXACT` erlangs it is
  that of Halfin and Whitt (Operations Research 29, 1981), which differs by less than 2 % there.
- Service times that aren't exponential scale the time that one waits by (1 + their squared
  coefficient of variation) / 2 (Allen and Cunneen; Whitt, Production and Operations Management 2,
  1993).
- Jobs that wait already are a fluid: `c` slots start `c * (1 + t / s)` jobs within `t`, less those
  that run now. They start in the order in which they came: those that come meanwhile wait behind
  them, and for no longer than they do while the slots are enough for the stream.
- Jobs that run far longer than their kind are neither: each keeps a slot.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, NamedTuple

EXACT: Final = 100.0
FULLEST: Final = 0.97
"""No more of the slots may be busy on average: beyond it waits explode with the least error."""

STEADY: Final = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of the slots. Times are in seconds, rates per second.

    `service` is the mean time that a job takes, `variation` its squared coefficient of variation;
    `running` are jobs in slots now, `occupied` those that will be when help is there; `stuck` run
    far longer than usual, beside them. `backlog` is to start within `horizon`; new ones come at
    `rate` and are to start `within`. `ahead` is how long what is decided now has to suffice.
    """

    rate: float
    service: float
    variation: float
    running: float
    occupied: float
    stuck: int
    backlog: float
    horizon: float
    within: float
    ahead: float


class Need(NamedTuple):
    """The slots that each part of a load needs; those for `stream` and `backlog` overlap."""

    stuck: int
    stream: float
    backlog: float

    @property
    def slots(self) -> float:
        return self.stuck + max(self.stream, self.backlog)


def needs(load: Load, late: float) -> Need:
    """The least slots with which no more than this part of the jobs (0 to 1) starts too late.

    They grow with each part of the load.
    """
    stream = _for_stream(load, late) if load.rate > 0 else 0.0
    return Need(load.stuck, stream, _for_backlog(load))


def _for_backlog(load: Load) -> float:
    """As many as start the backlog within the horizon, and in time what comes until its end."""
    before = load.occupied + load.backlog
    behind = before + load.rate * load.horizon
    first = before / (1 + load.horizon / load.service)
    last = behind / (1 + (load.horizon + load.within) / load.service)
    return max(first, last)


def _for_stream(load: Load, late: float) -> float:
    """As many as let so few jobs wait for longer than they may, until the next look at it.

    By then a part of what runs now still does, and new jobs have come: so many are expected, and
    so much do they vary (an M/G/∞ queue seen after `ahead`, as if times were exponential). What
    varies by less than chance needs less to spare: Hayward's approximation (Fredericks, Bell
    System Technical Journal 59, 1980) staffs for `mean / peakedness` erlangs.
    """
    stays = math.exp(-load.ahead / load.service)
    fresh = load.rate * load.service * (1 - stays)
    mean = load.running * stays + fresh
    peakedness = (load.running * stays * (1 - stays) + fresh) / mean
    least = mean / (1 - (1 - FULLEST) * (1 - stays))
    if mean / peakedness > EXACT:
        return max(least, _many(mean, peakedness, load, late))
    return max(least, _few(mean, peakedness, load, late))


def _few(mean: float, peakedness: float, load: Load, late: float) -> float:
    erlangs = mean / peakedness
    blocked, slots = 1.0, 0
    while True:
        slots += 1
        blocked = erlangs * blocked / (slots + erlangs * blocked)
        if slots <= erlangs:
            continue
        waits = slots * blocked / (slots - erlangs * (1 - blocked))
        if waits * _outlast((slots - erlangs) * peakedness, load) <= late:
            return slots * peakedness


def _outlast(spare: float, load: Load) -> float:
    """The part of those who wait at all that waits for longer than it may."""
    return math.exp(-2 * spare * load.within / (load.service * (1 + load.variation)))


def _many(mean: float, peakedness: float, load: Load, late: float) -> float:
    """The square-root rule: `mean + quality * deviation`, by bisection over the quality."""
    deviation = math.sqrt(mean * peakedness)
    lowest, highest = 0.0, 5.0
    for _ in range(20):
        quality = (lowest + highest) / 2
        waits = 1 / (1 + quality * STEADY.cdf(quality) / STEADY.pdf(quality))
        is_enough = waits * _outlast(quality * deviation, load) <= late
        lowest, highest = (lowest, quality) if is_enough else (quality, highest)
    return mean + highest * deviation
