"""Recorded traces: CSV with the header `at,seconds` or `at,seconds,kind`, one job a line.

`at` is when a job could start, in seconds or as an ISO 8601 time (without a zone in UTC); all lines
of a file say it the same way. `seconds` is how long it ran. Lines may be in any order. The trace
begins with its first job.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from jangada_operator.simulation.trace import Trace

HEADERS = (["at", "seconds"], ["at", "seconds", "kind"])


class BadTraceError(ValueError):
    """A file that holds no trace; the message names the line and how to mend it."""


class _Job(NamedTuple):
    at: float
    seconds: float
    kind: str


class _Rows(Protocol):
    """What `csv.reader` gives."""

    @property
    def line_num(self) -> int: ...
    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


def read_trace(path: Path) -> Trace:
    """The trace that a file holds, named after the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            jobs = sorted(_jobs(path.name, csv.reader(file, strict=True)))
    except OSError as error:
        raise BadTraceError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadTraceError(f"{path.name} isn't UTF-8: save it as UTF-8") from error
    if not jobs:
        raise BadTraceError(f"{path.name} has no jobs: add one a line below its header")
    first = jobs[0].at
    return Trace(
        name=path.stem,
        seconds=jobs[-1].at - first,
        arrivals=[job.at - first for job in jobs],
        services=[job.seconds for job in jobs],
        kinds=[job.kind for job in jobs] if jobs[0].kind else (),
    )


def _jobs(name: str, rows: _Rows) -> Iterator[_Job]:
    """Each line's job; an error says which line it is in."""
    try:
        columns = _columns(next(rows, []))
        is_moment: bool | None = None
        for row in rows:
            if row:
                job, told_as_moment = _job(row, columns)
                is_moment = _same(is_moment, told_as_moment)
                yield job
    except csv.Error as error:
        mend = "look at its quotation marks"
        raise BadTraceError(f"{name}, line {rows.line_num}: {error}: {mend}") from error
    except BadTraceError as error:
        raise BadTraceError(f"{name}, line {max(1, rows.line_num)}: {error}") from error


def _columns(header: Sequence[str]) -> int:
    if [cell.strip() for cell in header] not in HEADERS:
        raise BadTraceError("the header must be `at,seconds` or `at,seconds,kind`")
    return len(header)


def _same(before: bool | None, now: bool) -> bool:
    if before not in {None, now}:
        raise BadTraceError("`at` must be in seconds in all lines, or a time in all")
    return now


def _job(row: Sequence[str], columns: int) -> tuple[_Job, bool]:
    if len(row) != columns:
        raise BadTraceError(f"has {len(row)} values where the header names {columns}")
    at, is_moment = _at(row[0].strip())
    kind = row[2].strip() if columns > len(HEADERS[0]) else ""
    if columns > len(HEADERS[0]) and not kind:
        raise BadTraceError("`kind` is empty: name it, or leave the column out in all lines")
    return _Job(at, _service(row[1].strip()), kind), is_moment


def _at(text: str) -> tuple[float, bool]:
    seconds = _number(text)
    if seconds is not None:
        return seconds, False
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        mend = "write seconds, as 12.5, or a time, as 2026-03-01T12:00:00Z"
        raise BadTraceError(f"`at` is {text!r}: {mend}") from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.timestamp(), True


def _service(text: str) -> float:
    seconds = _number(text)
    if seconds is None or seconds < 0:
        raise BadTraceError(f"`seconds` is {text!r}: write how long the job ran, as 0.25")
    return seconds


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
