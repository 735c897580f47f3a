"""What truly happened: each process appends lines to a file of its own, which outlives its death.

A line is one write with `O_APPEND`, so a SIGKILL loses none that was begun. Times are those of
`CLOCK_MONOTONIC`, which all processes of a machine share. It knows nothing of what is tested.
"""

import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path

_files: "dict[tuple[str, int], int]" = {}


@dataclass(frozen=True)
class Entry:
    """One line: what happened to which job, in which process, and when."""

    what: str
    job: str
    pid: int
    at: float


def write(folder: str, what: str, job: str, *, pid: int = 0) -> None:
    """Append to the file of this process; `pid` is somebody else's when it was done to them."""
    own = os.getpid()
    file = _files.get((folder, own))
    if file is None:
        path = Path(folder) / f"ledger-{own}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        file = _files[folder, own] = os.open(path, flags, 0o600)
    os.write(file, f"{what} {job} {pid or own} {time.monotonic_ns()}\n".encode())


@dataclass
class Counts:
    """What must be zero, and what a promise of "at least once" allows, of any number of jobs."""

    jobs: int = 0
    lost: int = 0
    phantoms: int = 0
    double_runs: int = 0
    double_effects: int = 0
    repeated: int = 0
    """Ended, but their process was killed before the queue knew it: they ran again, rightly."""
    thawed: int = 0
    """Started again while their process was frozen, as is documented: it is no double run."""

    @property
    def violations(self) -> int:
        return self.lost + self.phantoms + self.double_runs + self.double_effects

    def __add__(self, other: "Counts") -> "Counts":
        names = self.__dataclass_fields__
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __str__(self) -> str:
        return (
            f"{self.jobs} jobs: {self.lost} lost, {self.phantoms} phantoms, "
            f"{self.double_runs} double runs, {self.double_effects} double effects"
            + (f", {self.repeated} repeated after a kill" if self.repeated else "")
            + (f", {self.thawed} started beside a frozen process" if self.thawed else "")
        )


@dataclass
class Ledger:
    """Reads what was written in a folder, each line once."""

    folder: Path
    _by_job: "dict[tuple[str, str], list[Entry]]" = field(default_factory=lambda: defaultdict(list))
    _read: "dict[Path, int]" = field(default_factory=dict)

    def write(self, what: str, job: str, *, pid: int = 0) -> None:
        write(str(self.folder), what, job, pid=pid)

    def look(self) -> None:
        """Read what is new."""
        for path in self.folder.glob("ledger-*"):
            begin = self._read.get(path, 0)
            if path.stat().st_size == begin:
                continue
            with path.open("rb") as file:
                file.seek(begin)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read[path] = begin + len(whole) + len(newline)
            for line in whole.decode().splitlines():
                what, job, pid, at = line.split(" ")
                entry = Entry(what, job, int(pid), int(at) / 1e9)
                self._by_job[what, job].append(entry)

    def of(self, what: str, job: str) -> "list[Entry]":
        """What happened to a job, in order."""
        self.look()
        return self._of(what, job)

    def _of(self, what: str, job: str) -> "list[Entry]":
        return sorted(self._by_job.get((what, job), ()), key=lambda entry: entry.at)

    def all(self, what: str) -> "list[Entry]":
        self.look()
        found = (entries for (happened, _), entries in self._by_job.items() if happened == what)
        return sorted(chain.from_iterable(found), key=lambda entry: entry.at)

    def jobs(self, what: str) -> "set[str]":
        self.look()
        return {job for (happened, job), found in self._by_job.items() if happened == what}

    def pids(self, what: str) -> "set[int]":
        """To which processes it happened."""
        return {entry.pid for entry in self._by_job.get((what, "-"), ())}

    def audit(self) -> Counts:
        """Count exactly; everything that was enqueued should have ended by now."""
        enqueued, started, ended = (self.jobs(what) for what in ("enqueued", "start", "end"))
        killed, gone = (self.all(what) for what in ("killed", "gone"))
        counts = Counts(
            jobs=len(enqueued),
            lost=len(enqueued - ended),
            phantoms=len(started - enqueued - self.jobs("perhaps")),
        )
        for job in started:
            self._audit_starts(job, killed + gone, counts)
            self._audit_ends(job, killed, counts)
        return counts

    def _audit_starts(self, job: str, deaths: "list[Entry]", counts: Counts) -> None:
        whats = ("end", "cancelled", "failed")
        overs = [*deaths, *(entry for what in whats for entry in self._of(what, job))]
        for before, after in pairwise(self._of("start", job)):
            is_over = any(e.pid == before.pid and before.at <= e.at <= after.at for e in overs)
            if before.pid in self.pids("frozen"):
                counts.thawed += 1
            else:
                counts.double_runs += not is_over

    def _audit_ends(self, job: str, killed: "list[Entry]", counts: Counts) -> None:
        for end in self._of("end", job)[:-1]:
            if any(death.pid == end.pid and death.at >= end.at for death in killed):
                counts.repeated += 1
            elif self.pids("frozen") & {entry.pid for entry in self._of("end", job)}:
                counts.thawed += 1
            else:
                counts.double_effects += 1
