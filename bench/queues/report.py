"""The tables, and which targets are held."""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from figures import machine
from rich.console import Console
from rich.table import Table

from queues.contestants import CONTESTANTS, Contestant
from queues.measures import Results
from queues.recovery import Wait

MEBIBYTE = 1 << 20
CRASH_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of the results as it is printed."""

    title: str
    figure: str
    divisor: float = 1.0
    digits: int = 0

    def cell(self, values: Sequence[float]) -> str:
        if not values:
            return "-"
        low, middle, high = (
            f"{pick(values) / self.divisor:,.{self.digits}f}"
            for pick in (min, statistics.median, max)
        )
        return middle if len(values) == 1 else f"{middle}\n({low} … {high})"


THROUGHPUT = (
    Column("no-op, drain\njobs/s", "noop_drain"),
    Column("no-op, through\njobs/s", "noop_through"),
    Column("one INSERT, drain\njobs/s", "insert_drain"),
    Column("one INSERT, through\njobs/s", "insert_through"),
    Column("100 ms sleep, drain\njobs/s", "nap_drain"),
    Column("bulk enqueue\njobs/s", "bulk"),
)
PICKUP = (
    Column("enqueued to started\np50, ms", "pickup_p50", digits=1),
    Column("p99, ms", "pickup_p99", digits=1),
    Column("call to started\np50, ms", "called_p50", digits=1),
    Column("p99, ms", "called_p99", digits=1),
)
PROCESSOR = (
    Column("its processes\nµs", "processor"),
    Column("PostgreSQL\nµs", "processor_postgres"),
    Column("Valkey\nµs", "processor_valkey"),
    Column("all\nµs", "processor_all"),
)
MEMORY = (
    Column("processes, RSS\nMiB", "resident", MEBIBYTE),
    Column("processes, PSS\nMiB", "proportional", MEBIBYTE),
    Column("PostgreSQL, PSS\nMiB", "postgres", MEBIBYTE),
    Column("Valkey, a waiting job\nbytes", "bytes_waiting"),
    Column("Valkey, left of a job\nbytes", "bytes_left"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """What is promised of a figure, alone or as a ratio to another's."""

    what: str
    ours: tuple[str, str]
    bound: float
    than: tuple[str, str] | None = None
    is_at_most: bool = False
    unit: str = "×"

    def value(self, results: Results) -> float | None:
        ours = results.values.get(self.ours)
        if not ours:
            return None
        if self.than is None:
            return statistics.median(ours)
        theirs = results.values.get(self.than)
        return statistics.median(ours) / statistics.median(theirs) if theirs else None

    def is_held(self, value: float) -> bool:
        return value <= self.bound if self.is_at_most else value >= self.bound


STOCK = ("stock", "noop_drain")
NOOP, INSERT = ("ours", "noop_drain"), ("ours-own", "insert_drain")
PICKED_UP = ("ours", "pickup_p50")
TARGETS = (
    Target("queue alone, no-op: of stock taskiq-redis", ("queue", "noop_drain"), 1.0, STOCK),
    Target("with PostgreSQL, no session: of stock taskiq-redis", NOOP, 1.5, STOCK),
    Target("… of procrastinate", NOOP, 10.0, ("procrastinate", "noop_drain")),
    Target("… of Celery", NOOP, 2.0, ("celery", "noop_drain")),
    Target("own transaction, one INSERT: of stock taskiq-redis", INSERT, 0.25, STOCK),
    Target("… of procrastinate, same handler", INSERT, 2.0, ("procrastinate", "insert_drain")),
    Target("bulk enqueue, 5,000 a batch: of COPY", ("ours", "bulk"), 0.5, ("copy", "bulk")),
    Target("pick-up, p50", PICKED_UP, 8.0, is_at_most=True, unit="ms"),
    Target("pick-up, p99", ("ours", "pickup_p99"), 30.0, is_at_most=True, unit="ms"),
    Target("pick-up, p50: of the bare loop", PICKED_UP, 3.0, ("bare", "pickup_p50"), True),
)


def report(
    results: Results,
    recoveries: Sequence[dict[str, Wait]],
    contestants: Sequence[Contestant],
    *,
    skipped: dict[str, str],
) -> int:
    """Print everything; 1 when a target isn't held or something is void."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    for title, columns in (
        ("Throughput", THROUGHPUT),
        ("Pick-up at a fixed rate", PICKUP),
        ("Processor time of a no-op job while draining", PROCESSOR),
        ("Memory", MEMORY),
    ):
        _print_figures(console, title, columns, (results, contestants))
    _print_recoveries(console, recoveries, contestants)
    verdicts = [*_verdicts(results), *_crash_verdicts(recoveries)]
    _print_verdicts(console, verdicts)
    for void in results.voids:
        console.print(f"VOID: {void}", markup=False)
    for name, why in skipped.items():
        console.print(f"SKIPPED: {name}: {why}. Its figures and targets are missing above.")
    failed = any(is_held is False for *_, is_held in verdicts)
    return 1 if failed or results.voids else 0


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _print_figures(
    console: Console,
    title: str,
    columns: Sequence[Column],
    measured: tuple[Results, Sequence[Contestant]],
) -> None:
    results, contestants = measured
    table = _table(f"{title}: median (least … most)", *(column.title for column in columns))
    for contestant in contestants:
        cells = [
            column.cell(results.values.get((contestant.name, column.figure), ()))
            for column in columns
        ]
        if set(cells) != {"-"}:
            table.add_row(contestant.title, *cells)
    if table.row_count:
        console.print(table)


def _print_recoveries(
    console: Console, recoveries: Sequence[dict[str, Wait]], contestants: Sequence[Contestant]
) -> None:
    if not recoveries:
        return
    table = _table("Recovery of a killed worker's job on a silent queue", "seconds, each kill")
    for contestant in contestants:
        waits = [found[contestant.name] for found in recoveries if contestant.name in found]
        if waits:
            table.add_row(contestant.title, ", ".join(map(_told, waits)))
    console.print(table)


def _told(wait: Wait) -> str:
    return f"> {wait.bound:.0f}" if wait.seconds is None else f"{wait.seconds:.1f}"


type Verdict = tuple[str, str, str, bool | None]


def _verdicts(results: Results) -> list[Verdict]:
    found: list[Verdict] = []
    for target in TARGETS:
        value = target.value(results)
        sign = "≤" if target.is_at_most else "≥"
        wanted = f"{sign} {target.bound:g} {target.unit}"
        if value is None:
            found.append((target.what, wanted, "-", None))
        else:
            told = f"{value:.2f} {target.unit}"
            found.append((target.what, wanted, told, target.is_held(value)))
    return found


def _crash_verdicts(recoveries: Sequence[dict[str, Wait]]) -> list[Verdict]:
    found: list[Verdict] = []
    for contestant in CONTESTANTS:
        waits = [each[contestant.name] for each in recoveries if contestant.name in each]
        if contestant.is_ours and waits:
            seconds = [wait.bound if wait.seconds is None else wait.seconds for wait in waits]
            what = f"recovery, {contestant.title}: the longest"
            is_held = max(seconds) <= CRASH_SECONDS
            found.append((what, f"≤ {CRASH_SECONDS:g} s", f"{max(seconds):.1f} s", is_held))
    return found


_WORDS: dict[bool | None, str] = {True: "held", False: "NOT HELD", None: "not measured"}


def _print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    table = _table("Targets", "target", "found", "")
    table.caption = machine()
    for what, wanted, told, is_held in verdicts:
        table.add_row(what, wanted, told, _WORDS[is_held])
    console.print(table)
