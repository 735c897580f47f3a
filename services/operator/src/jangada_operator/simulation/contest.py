"""The policies that can be compared, and a run of one of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from jangada_operator.simulation.cluster import Autoscaler, Cluster, Terms
from jangada_operator.simulation.figures import Figures, figures_of
from jangada_operator.simulation.ours import Ours
from jangada_operator.simulation.outcome import Outcome
from jangada_operator.simulation.rivals.hpa import CpuAutoscaler
from jangada_operator.simulation.rivals.keda import as_documented, as_tuned
from jangada_operator.simulation.rivals.oracle import Oracle
from jangada_operator.simulation.trace import Trace
from jangada_queue.policy.wanted import Wanted

OURS: Final = "jangada"
ORACLE: Final = "oracle"
CHANGED: Final = "jangada, changed"

type Make = Callable[[Wanted, Trace, Terms], Autoscaler]

POLICIES: Final[dict[str, Make]] = {
    OURS: lambda wanted, _, __: Ours(wanted),
    "keda": lambda wanted, _, __: as_documented(wanted),
    "keda-tuned": lambda wanted, trace, terms: as_tuned(wanted, trace, terms.slots),
    "hpa": lambda wanted, _, __: CpuAutoscaler(wanted),
    ORACLE: lambda wanted, _, __: Oracle(wanted),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A policy, under the name that it is shown with, and the spec that it follows."""

    name: str
    policy: str
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Run:
    """One trace under one policy."""

    trace: Trace
    entry: Entry
    outcome: Outcome
    figures: Figures


def run(trace: Trace, entry: Entry, terms: Terms) -> Run:
    """The same for the same arguments, to the bit."""
    autoscaler = POLICIES[entry.policy](entry.wanted, trace, terms)
    outcome = Cluster(trace, terms).run(autoscaler)
    within = entry.wanted.start_within.total_seconds()
    figures = figures_of(trace, entry.name, outcome, within=within, terms=terms)
    return Run(trace, entry, outcome, figures)
