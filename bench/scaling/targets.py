"""What is promised of the policy, and whether it is held."""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from random import Random

from figures import machine
from rich.console import Console
from rich.table import Table

from jangada_operator.simulation.cluster import Terms
from jangada_operator.simulation.contest import ORACLE, OURS, Entry, run
from jangada_operator.simulation.figures import ALL, Figures, ratio_to, reversals
from jangada_operator.simulation.recorded import read_trace
from jangada_operator.simulation.tables import show_share
from jangada_operator.simulation.traces import HOUR, MINUTE, about, drawn, load
from jangada_queue.policy.wanted import Wanted

ONCE_POSSIBLE = 0.95
POD_SECONDS = 1.2
REPLAY_SECONDS = 10.0
REVERSALS = 1.0
STEADY_RATES = (1.0, 10.0, 100.0)
"""Jobs of a second, per second, at random: steady loads of as many slots."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what was found; `is_held` is as exact as the figures are."""

    what: str
    target: str
    found: str
    is_held: bool


def judge(figures: Sequence[Figures], wanted: Wanted, seed: int) -> int:
    """Print each target with its figure; the exit code is 1 when one isn't held."""
    return report([*_of_contest(figures), _steady(wanted, seed), *_replay(wanted, seed)])


def report(verdicts: Sequence[Verdict]) -> int:
    """Print them below each other; the exit code is 1 when one isn't held."""
    table = Table(title="Targets", caption=machine(), title_justify="left")
    table.caption_justify = "left"
    for column in ("", "target", "found", ""):
        table.add_column(column, justify="left" if column == "" else "right")
    for each in verdicts:
        word = "held" if each.is_held else "NOT HELD"
        table.add_row(each.what, each.target, each.found, word)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0 if all(each.is_held for each in verdicts) else 1


def _of_contest(figures: Sequence[Figures]) -> list[Verdict]:
    sums = {each.policy: each for each in figures if each.trace == ALL}
    ours = sums[OURS]
    share, ratio = ours.share_once_possible, ratio_to(ours, sums[ORACLE]) or float("inf")
    return [
        Verdict(
            "started in time once replicas could be there, all loads",
            f"≥ {ONCE_POSSIBLE * 100:.0f} %",
            show_share(share),
            share >= ONCE_POSSIBLE,
        ),
        Verdict("interrupted jobs, all loads", "0", str(ours.interrupted), not ours.interrupted),
        Verdict(
            "pod-seconds, all loads: of the oracle",
            f"≤ {POD_SECONDS:g} ×",
            f"{ratio:.2f} ×",
            ratio <= POD_SECONDS,
        ),
    ]


def _steady(wanted: Wanted, seed: int) -> Verdict:
    """An hour of each rate; its first ten minutes are left out, in which the pool learns it."""
    highest = max(_reversals(rate, wanted, seed) for rate in STEADY_RATES)
    return Verdict(
        "reversals on a steady load, the most of three",
        f"≤ {REVERSALS:g} in 10 min",
        f"{highest:.2f}",
        highest <= REVERSALS,
    )


def _reversals(rate: float, wanted: Wanted, seed: int) -> float:
    """In ten minutes, on average."""
    seconds, left_out = HOUR + 10 * MINUTE, 10 * MINUTE
    trace = drawn(
        "steady",
        Random(seed),
        seconds=seconds,
        rate=lambda _: rate,
        highest=rate,
        service=about(1.0),
    )
    outcome = run(trace, Entry(OURS, OURS, wanted), Terms()).outcome
    sizes = [size for at, size in outcome.sizes if left_out <= at < seconds]
    return reversals([*outcome.size_at([left_out]), *sizes]) / 6


def _replay(wanted: Wanted, seed: int) -> list[Verdict]:
    """A recorded day under a changed spec, from the file to the figures, twice.

    Processor time: what it takes where nothing else runs.
    """
    changed = replace(wanted, start_within=timedelta(seconds=10))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "day.csv"
        day = load("diurnal", seed)
        jobs = zip(day.arrivals, day.services, strict=True)
        path.write_text("at,seconds\n" + "".join(f"{at!r},{takes!r}\n" for at, takes in jobs))
        began = time.process_time()
        first = run(read_trace(path), Entry(OURS, OURS, changed), Terms())
        seconds = time.process_time() - began
        again = run(read_trace(path), Entry(OURS, OURS, changed), Terms())
    is_same = first.outcome == again.outcome
    return [
        Verdict(
            "replay of 24 h under a changed spec",
            f"≤ {REPLAY_SECONDS:g} s",
            f"{seconds:.1f} s",
            seconds <= REPLAY_SECONDS,
        ),
        Verdict("… a second time", "the same", "the same" if is_same else "another", is_same),
    ]
