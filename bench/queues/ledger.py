"""What ran, and when: one record for each run of a job, appended by whichever process ran it.

Only the standard library, because it is imported into every contestant. A record costs one write of
24 bytes, about a microsecond, for each of them the same; it survives the kill of its writer. Times
are of the monotonic clock, which all processes of a machine share on Linux.
"""

import itertools
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PATH = "QUEUES_LEDGER"
_RECORD = struct.Struct("<IIQd")
_counter = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the job `index`; `count` is what its process had counted up to then."""

    index: int
    process: int
    count: int
    at: float


@cache
def _file() -> int:
    return os.open(os.environ[PATH], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def record(index: int) -> None:
    """Bump this process's counter and write the run down. For any thread of any forked process."""
    os.write(_file(), _RECORD.pack(index, os.getpid(), next(_counter), time.monotonic()))


def _restart() -> None:
    """A forked process counts from 1."""
    global _counter  # noqa: PLW0603 - a process-local counter is what is asked for
    _counter = itertools.count(1)


os.register_at_fork(after_in_child=_restart)


class Ledger:
    """The records of one file, read as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._runs: list[Run] = []
        self._read = 0

    def count(self) -> int:
        """How many runs there are so far; cheap enough to be asked while others are measured."""
        return self.path.stat().st_size // _RECORD.size if self.path.exists() else 0

    def runs(self) -> list[Run]:
        """All runs so far, in the order in which they were written."""
        self._runs += self._new()
        return self._runs

    def _new(self) -> Iterator[Run]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole = file.read()
        whole = whole[: len(whole) // _RECORD.size * _RECORD.size]
        self._read += len(whole)
        for fields in _RECORD.iter_unpack(whole):
            yield Run(*fields)

    def of(self, indexes: range) -> list[Run]:
        return [run for run in self.runs() if run.index in indexes]

    def fault(self, indexes: range) -> str | None:
        """Why these jobs did not run exactly once each, by the records and by the counters."""
        times = Counter(run.index for run in self.of(indexes))
        lost = sum(1 for index in indexes if index not in times)
        doubled = sum(1 for count in times.values() if count > 1)
        if lost or doubled:
            return f"{lost} of {len(indexes)} jobs did not run, {doubled} ran more than once"
        written = Counter(run.process for run in self.runs())
        counted: Counter[int] = Counter()
        for run in self.runs():
            counted[run.process] = max(counted[run.process], run.count)
        return None if written == counted else "the processes counted other jobs than they wrote"
