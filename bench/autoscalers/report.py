"""The table of both, and the targets."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from scaling.targets import Verdict

from autoscalers.contestants import JANGADA
from autoscalers.measured import IN_TIME, Measured
from jangada_operator.simulation.tables import show_share

DECIDED_SECONDS: Final = 2.0


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:,.1f} s"


ROWS: Final[Mapping[str, Callable[[Measured], str]]] = {
    "first job, to the decision": lambda found: _seconds(found.decided),
    "first job, to its start": lambda found: _seconds(found.first_wait),
    f"jobs started within {IN_TIME:g} s": lambda found: show_share(found.figures.share_in_time),
    "wait, p50": lambda found: _seconds(found.figures.wait(0.5)),
    "wait, p95": lambda found: _seconds(found.figures.wait(0.95)),
    "longest wait": lambda found: _seconds(found.figures.wait(1.0)),
    "pod-seconds": lambda found: f"{found.figures.pod_seconds:,.0f}",
    "… of what the jobs take": lambda found: (
        f"{found.figures.pod_seconds / found.figures.least_pod_seconds:.2f} ×"
    ),
    "pods, and most at once": lambda found: f"{found.pods}, {found.most}",
    "pods asked to end, busy ones": lambda found: f"{found.asked}, {found.busy}",
    "jobs interrupted": lambda found: str(found.figures.interrupted),
    "jobs lost or doubled": lambda found: str(found.violations),
    "last job's end, to no pod": lambda found: _seconds(found.idle),
}


def markdown(found: Sequence[Measured]) -> str:
    heads = [["", *(each.figures.policy for each in found)], ["---", *("---:" for _ in found)]]
    rows = [[title, *map(show, found)] for title, show in ROWS.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in heads + rows)


def verdicts(found: Sequence[Measured]) -> list[Verdict]:
    """Of ours each promise, and of both that the queue holds its own."""
    (ours,) = (each for each in found if each.figures.policy == JANGADA.name)
    return [
        Verdict(
            "first job, to the decision",
            f"≤ {DECIDED_SECONDS:g} s",
            _seconds(ours.decided),
            ours.decided <= DECIDED_SECONDS,
        ),
        _none("busy pods asked to end", ours.busy),
        _none("jobs interrupted", ours.figures.interrupted),
        *(_none(f"jobs lost or doubled, {each.figures.policy}", each.violations) for each in found),
    ]


def _none(what: str, count: int) -> Verdict:
    return Verdict(what, "0", str(count), not count)
