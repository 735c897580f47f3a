"""What is measured of an autoscaler: the same of each, from the ledger and what was watched."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chaos.ledger import Ledger
from cluster.life import Exit

from autoscalers.contestants import SLOTS
from autoscalers.watching import Lifetimes, Sizes
from jangada_operator.simulation.figures import Figures, reversals
from jangada_operator.simulation.trace import Trace

IN_TIME: Final = 5.0
START: Final = 2.0
"""Seconds from a pod's making until its process is started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Of one autoscaler. Times are in seconds.

    `decided` is from the first job to the first size above none, `first_wait` to that job's start,
    `idle` from the last job's end until the last pod was gone. `asked` pods were to end, of which
    `busy` ran something then. `violations` are jobs lost or doubled.
    """

    figures: Figures
    decided: float
    first_wait: float
    idle: float
    pods: int
    most: int
    asked: int
    busy: int
    violations: int


def measured(
    name: str,
    *,
    trace: Trace,
    ledger: Ledger,
    lifetimes: Lifetimes,
    sizes: Sizes,
    exits: Sequence[Exit],
) -> Measured:
    """Of a load that has ended, before anything is removed by others than the autoscaler."""
    waits = waits_of(ledger)
    first, last = ledger.all("perhaps")[0].at, ledger.all("end")[-1].at
    asked = [each for each in exits if each.was_asked]
    ordered = sorted(waits)
    figures = Figures(
        trace=trace.name,
        policy=name,
        seconds=lifetimes.ended_at - first,
        jobs=len(waits),
        in_time=bisect_right(ordered, IN_TIME),
        in_time_once_possible=bisect_right(ordered, IN_TIME + START),
        waits=ordered,
        pod_seconds=lifetimes.pod_seconds,
        least_pod_seconds=trace.work / SLOTS,
        interrupted=interrupted(ledger),
        reversals=reversals([size for _, size in sizes.changes]),
        decisions=max(0, len(sizes.changes) - 1),
    )
    return Measured(
        figures=figures,
        decided=sizes.left_zero_at - first,
        first_wait=waits[0],
        idle=lifetimes.ended_at - last,
        pods=len(lifetimes.came),
        most=lifetimes.most,
        asked=len(asked),
        busy=sum(bool(each.held) for each in asked),
        violations=ledger.audit().violations,
    )


def waits_of(ledger: Ledger) -> list[float]:
    """From when each job was sent until it was started first, in the order of sending."""
    started: dict[str, float] = {}
    for entry in ledger.all("start"):
        started.setdefault(entry.job, entry.at)
    return [started.get(sent.job, float("inf")) - sent.at for sent in ledger.all("perhaps")]


def interrupted(ledger: Ledger) -> int:
    """Starts that came to no end in their process, whoever ended the job afterwards."""
    ended = {(entry.job, entry.pid) for entry in ledger.all("end")}
    return sum((entry.job, entry.pid) not in ended for entry in ledger.all("start"))
