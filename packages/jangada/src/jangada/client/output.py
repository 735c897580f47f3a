"""What a person sees of an import: how far it is, and how it ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

COUNTS: Final = ("inserted", "updated", "unchanged", "skipped", "duplicates", "rejected")
WAITING: Final = frozenset({"available", "scheduled"})


class Sending:
    """A bar of bytes."""

    def __init__(self, progress: Progress, size: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("Sending", total=size)

    def sent(self, count: int) -> None:
        self._progress.advance(self._task, count)


class Importing:
    """A bar of rows, and what the job waits for."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("Waiting for a worker", total=None)

    def seen(self, job: dict[str, Any]) -> None:
        reached = job.get("progress") or {}
        self._progress.update(
            self._task,
            description=_doing(job["state"]),
            completed=reached.get("done", 0),
            total=reached.get("total"),
        )


def _doing(state: str) -> str:
    if state in WAITING:
        return "Waiting for a worker"
    return "Trying again soon" if state == "retryable" else "Importing"


@contextmanager
def sending(console: Console, size: int | None, *, is_quiet: bool) -> Iterator[Sending]:
    with _bar(console, DownloadColumn(), is_quiet=is_quiet) as progress:
        yield Sending(progress, size)


@contextmanager
def importing(console: Console, *, is_quiet: bool) -> Iterator[Importing]:
    rows = TextColumn("{task.completed:,.0f} rows")
    with _bar(console, rows, is_quiet=is_quiet) as progress:
        yield Importing(progress)


def _bar(console: Console, amount: TextColumn | DownloadColumn, *, is_quiet: bool) -> Progress:
    """Drawn on a terminal only: in a log it would be a thousand lines."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        amount,
        TimeElapsedColumn(),
        console=console,
        disable=is_quiet or not console.is_terminal,
    )


def print_statistics(console: Console, result: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("rows", f"{result['rows']:,}", style="bold")
    for name in COUNTS:
        table.add_row(f"  {name}", f"{result[name]:,}")
        if name == "rejected":
            for reason, count in sorted(result["rejected_by_reason"].items()):
                table.add_row(f"    {escape(reason)}", f"{count:,}", style="yellow")
    table.add_row("seconds", f"{result['seconds']:,.1f}")
    console.print(table)


def print_failure(console: Console, job: dict[str, Any]) -> None:
    """Why the import did not happen: nothing of the file was imported."""
    outcome = "was cancelled" if job["state"] == "cancelled" else "failed"
    console.print(f"The import {outcome}; nothing of the file was imported.", style="red")
    for failure in job["errors"][-1:]:
        console.print(f"{failure['detail']} [{failure['code']}]", markup=False)
        for error in failure.get("errors", ()):
            console.print(f"  {error['pointer']}: {error['detail']}", markup=False)
