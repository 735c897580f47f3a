"""Figures as people and programs read them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from rich.table import Table

from jangada_operator.simulation.contest import ORACLE
from jangada_operator.simulation.figures import Figures, ratio_to

type Reference = Figures | None


def show_share(part: float) -> str:
    """Rounded down: 100 % means all of them."""
    return f"{math.floor(part * 10000) / 100:.2f} %"


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.2f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


COLUMNS: Final[Mapping[str, Callable[[Figures, Reference], str]]] = {
    "trace": lambda figures, _: figures.trace,
    "policy": lambda figures, _: figures.policy,
    "in time": lambda figures, _: show_share(figures.share_in_time),
    "once possible": lambda figures, _: show_share(figures.share_once_possible),
    "p50 s": lambda figures, _: _seconds(figures.wait(0.5)),
    "p95 s": lambda figures, _: _seconds(figures.wait(0.95)),
    "p99 s": lambda figures, _: _seconds(figures.wait(0.99)),
    "max s": lambda figures, _: _seconds(figures.wait(1.0)),
    "pod-seconds": lambda figures, _: f"{figures.pod_seconds:.0f}",
    "of oracle": lambda figures, oracle: _ratio(ratio_to(figures, oracle)),
    "work/slots": lambda figures, _: f"{figures.least_pod_seconds:.0f}",
    "interrupted": lambda figures, _: str(figures.interrupted),
    "reversals": lambda figures, _: str(figures.reversals),
    "per hour": lambda figures, _: f"{figures.reversals_per_hour:.2f}",
    "decisions": lambda figures, _: str(figures.decisions),
}
WORDS: Final = frozenset({"trace", "policy"})


def _with_oracle(figures: Sequence[Figures]) -> Iterator[tuple[Figures, Reference]]:
    oracles = {each.trace: each for each in figures if each.policy == ORACLE}
    return ((each, oracles.get(each.trace)) for each in figures)


def _cells(figures: Sequence[Figures]) -> list[list[str]]:
    return [[show(*pair) for show in COLUMNS.values()] for pair in _with_oracle(figures)]


def table(figures: Sequence[Figures]) -> Table:
    """For a terminal: a section for each trace."""
    found = Table(box=None, header_style="bold")
    for name in COLUMNS:
        found.add_column(name, justify="left" if name in WORDS else "right", no_wrap=True)
    before = figures[0].trace if figures else ""
    for cells in _cells(figures):
        if cells[0] != before:
            found.add_section()
            found.add_row()
        before = cells[0]
        found.add_row(*cells)
    return found


def markdown(figures: Sequence[Figures]) -> str:
    rule = ["---" if name in WORDS else "---:" for name in COLUMNS]
    lines = [list(COLUMNS), rule, *_cells(figures)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def objects(figures: Sequence[Figures]) -> list[dict[str, object]]:
    """For programs. A wait without an end is null."""
    return [_object(each, oracle) for each, oracle in _with_oracle(figures)]


def _object(figures: Figures, oracle: Reference) -> dict[str, object]:
    waits = {name: figures.wait(part) for name, part in _QUANTILES.items()}
    return {
        "trace": figures.trace,
        "policy": figures.policy,
        "seconds": figures.seconds,
        "jobs": figures.jobs,
        "share_in_time": figures.share_in_time,
        "share_once_possible": figures.share_once_possible,
        **{name: None if math.isinf(wait) else wait for name, wait in waits.items()},
        "pod_seconds": figures.pod_seconds,
        "pod_seconds_of_oracle": ratio_to(figures, oracle),
        "least_pod_seconds": figures.least_pod_seconds,
        "interrupted": figures.interrupted,
        "reversals": figures.reversals,
        "reversals_per_hour": figures.reversals_per_hour,
        "decisions": figures.decisions,
    }


_QUANTILES: Final = {
    "wait_p50_seconds": 0.5,
    "wait_p95_seconds": 0.95,
    "wait_p99_seconds": 0.99,
    "wait_longest_seconds": 1.0,
}
