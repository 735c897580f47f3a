"""What is measured of a run: the same of each policy."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from jangada_operator.simulation.cluster import Terms
from jangada_operator.simulation.outcome import Outcome
from jangada_operator.simulation.trace import Trace

HOUR: Final = 3600.0
ALL: Final = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one policy on one trace, or on all of them. Times are in seconds.

    `in_time` jobs started within the objective; `in_time_once_possible` within the objective and
    the time that a replica takes to start: no policy that doesn't know what comes can start a job
    sooner that finds nobody. `waits` are in order. `least_pod_seconds` is the work over the slots
    of a replica. `reversals` are changes of the size's direction, `decisions` all its changes.
    """

    trace: str
    policy: str
    seconds: float
    jobs: int
    in_time: int
    in_time_once_possible: int
    waits: Sequence[float]
    pod_seconds: float
    least_pod_seconds: float
    interrupted: int
    reversals: int
    decisions: int

    @property
    def share_in_time(self) -> float:
        return self.in_time / self.jobs if self.jobs else 1.0

    @property
    def share_once_possible(self) -> float:
        return self.in_time_once_possible / self.jobs if self.jobs else 1.0

    @property
    def reversals_per_hour(self) -> float:
        return self.reversals / (self.seconds / HOUR) if self.seconds else 0.0

    def wait(self, part: float) -> float:
        """So large a part of the jobs waited no longer; endless if some of it never started."""
        return self.waits[max(0, math.ceil(part * self.jobs) - 1)] if self.jobs else 0.0


def figures_of(
    trace: Trace, policy: str, outcome: Outcome, *, within: float, terms: Terms
) -> Figures:
    waits = sorted(outcome.waits)
    return Figures(
        trace=trace.name,
        policy=policy,
        seconds=outcome.ended_at,
        jobs=len(waits),
        in_time=bisect_right(waits, within),
        in_time_once_possible=bisect_right(waits, within + terms.start),
        waits=waits,
        pod_seconds=outcome.pod_seconds,
        least_pod_seconds=trace.work / terms.slots,
        interrupted=outcome.interrupted,
        reversals=reversals([size for _, size in outcome.sizes]),
        decisions=max(0, len(outcome.sizes) - 1),
    )


def reversals(sizes: Sequence[int]) -> int:
    """How often a pool that shrank grows, or the other way round."""
    directions = [after > before for before, after in pairwise(sizes) if after != before]
    return sum(before != after for before, after in pairwise(directions))


def total(parts: Iterable[Figures]) -> Figures:
    """Of one policy over several traces: sums, and the waits of all jobs together."""
    found = list(parts)
    return Figures(
        trace=ALL,
        policy=found[0].policy,
        seconds=sum(each.seconds for each in found),
        jobs=sum(each.jobs for each in found),
        in_time=sum(each.in_time for each in found),
        in_time_once_possible=sum(each.in_time_once_possible for each in found),
        waits=sorted(wait for each in found for wait in each.waits),
        pod_seconds=sum(each.pod_seconds for each in found),
        least_pod_seconds=sum(each.least_pod_seconds for each in found),
        interrupted=sum(each.interrupted for each in found),
        reversals=sum(each.reversals for each in found),
        decisions=sum(each.decisions for each in found),
    )


def with_totals(figures: Sequence[Figures]) -> list[Figures]:
    """Those of each run, and then the sums of each policy, where there are several traces."""
    if len({each.trace for each in figures}) <= 1:
        return list(figures)
    policies = dict.fromkeys(each.policy for each in figures)
    of_policy = [[each for each in figures if each.policy == name] for name in policies]
    return [*figures, *map(total, of_policy)]


def ratio_to(figures: Figures, other: Figures | None) -> float | None:
    """Pod-seconds, as a multiple of another policy's on the same trace."""
    if other is None or not other.pod_seconds:
        return None
    return figures.pod_seconds / other.pod_seconds
