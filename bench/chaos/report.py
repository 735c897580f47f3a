"""The two or three columns side by side, and the sum of what must be zero."""

import sys
from collections.abc import Mapping, Sequence

from figures import machine
from rich.console import Console
from rich.table import Table

from chaos.columns import Column
from chaos.findings import Entry, Finding
from chaos.ledger import Counts

type Findings = Mapping[tuple[str, str], Finding]


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160)


def _cell(finding: Finding | None) -> str:
    if finding is None:
        return "NOT MEASURED"
    return f"{finding.figure}\n[bold]{'sound' if finding.is_sound else 'NOT SOUND'}[/bold]"


def side_by_side(entries: Sequence[Entry], columns: Sequence[Column], found: Findings) -> None:
    table = Table(title="Chaos", caption=machine(), title_justify="left", show_lines=True)
    table.add_column("")
    table.add_column("question")
    for column in columns:
        table.add_column(f"{column.name}\n[bold red]{column.missing.upper()}[/bold red]")
    for entry in entries:
        cells = (
            _cell(found.get((entry.name, column.name))) if column in entry.columns else ""
            for column in columns
        )
        table.add_row(entry.name, entry.question, *cells)
    console().print(table)


def sums(columns: Sequence[Column], found: Findings) -> dict[str, Counts]:
    """What was counted in each column, over all of its scenarios."""
    total = {column.name: Counts() for column in columns}
    for (_, name), finding in found.items():
        total[name] += finding.counts
    for column in columns:
        console().print(f"{column.name}: {total[column.name]}")
    return total
