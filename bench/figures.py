"""Medians with their spread, the ratios that are promised, and how both are printed.

Every program here compares in one run what we do with the least that anybody could do, on the same
machine, servers and settings: absolute figures say little about another machine, ratios hold.
"""

import os
import platform
import statistics
import sys
import timeit
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """What several runs of one thing gave, more being better."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def spread(self) -> str:
        return f"{min(self.values):,.0f} … {max(self.values):,.0f}"


@dataclass(frozen=True, slots=True)
class Promise:
    """Our figure is at least so large a part of the bare one."""

    ours: Figure
    bare: Figure
    at_least: float

    @property
    def ratio(self) -> float:
        return self.ours.median / self.bare.median

    @property
    def is_held(self) -> bool:
        return self.ratio >= self.at_least


def machine() -> str:
    """What the figures belong to: processor, cores, memory, load, kernel, Python and date.

    Python with how long it computes the squares of the first million numbers: that depends on the
    hour, and on how it was built (pyenv's builds aren't optimised unless pyenv is told).
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[1]:.1f}, "
        f"{platform.system()} {platform.release()}, "
        f"Python {platform.python_version()} (a million squares in {_squares():.0f} ms), "
        f"{datetime.now(UTC):%Y-%m-%d}"
    )


def _squares() -> float:
    """The best of five, in milliseconds."""

    def once() -> None:
        for number in range(1_000_000):
            number * number

    return min(timeit.repeat(once, number=1, repeat=5)) * 1000


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def report(title: str, promises: Sequence[Promise]) -> int:
    """Print each promise with its figures; the exit code is 1 when one isn't held."""
    table = Table(title=title, caption=machine(), title_justify="left", caption_justify="left")
    for column in ("", "median", "spread", "of bare", "promised", ""):
        table.add_column(column, justify="left" if column == "" else "right")
    shown: set[Figure] = set()
    for promise in promises:
        bare, ours = promise.bare, promise.ours
        if bare not in shown:
            table.add_row(bare.name, f"{bare.median:,.0f} {bare.unit}", bare.spread(), "", "", "")
            shown.add(bare)
        table.add_row(
            ours.name,
            f"{ours.median:,.0f} {ours.unit}",
            ours.spread(),
            f"{promise.ratio:.0%}",
            f"≥ {promise.at_least:.0%}",
            "held" if promise.is_held else "NOT HELD",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0 if all(promise.is_held for promise in promises) else 1
