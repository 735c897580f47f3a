"""The ledger of the bench counts what happened, exactly: a bench that miscounts proves nothing."""

from pathlib import Path

import pytest
from chaos.ledger import Counts, Ledger

PROCESS, OTHER = 1, 2


def audit(folder: Path, *events: tuple[str, int]) -> Counts:
    """What is counted of one job `j`; what happens to a process happens to no job."""
    ledger = Ledger(folder)
    for what, pid in events:
        ledger.write(what, "-" if what in {"killed", "gone", "frozen"} else "j", pid=pid)
    return ledger.audit()


ENQUEUED = ("enqueued", PROCESS)
START, END, KILLED = (("start", PROCESS), ("end", PROCESS), ("killed", PROCESS))
AGAIN, END_AGAIN = (("start", OTHER), ("end", OTHER))


@pytest.mark.parametrize(
    ("events", "counts"),
    [
        ([ENQUEUED, START, END], Counts(jobs=1)),
        ([ENQUEUED], Counts(jobs=1, lost=1)),
        ([ENQUEUED, START], Counts(jobs=1, lost=1)),
        ([START, END], Counts(phantoms=1)),
        ([("perhaps", PROCESS), START, END], Counts()),
        ([ENQUEUED, START, KILLED, AGAIN, END_AGAIN], Counts(jobs=1)),
        ([ENQUEUED, START, ("gone", PROCESS), AGAIN, END_AGAIN], Counts(jobs=1)),
        ([ENQUEUED, START, ("failed", PROCESS), AGAIN, END_AGAIN], Counts(jobs=1)),
        ([ENQUEUED, START, AGAIN, END_AGAIN], Counts(jobs=1, double_runs=1)),
        ([ENQUEUED, START, AGAIN, KILLED, END_AGAIN], Counts(jobs=1, double_runs=1)),
        ([ENQUEUED, START, END, AGAIN, END_AGAIN], Counts(jobs=1, double_effects=1)),
        ([ENQUEUED, START, END, KILLED, AGAIN, END_AGAIN], Counts(jobs=1, repeated=1)),
        ([ENQUEUED, START, ("frozen", PROCESS), AGAIN, END_AGAIN], Counts(jobs=1, thawed=1)),
    ],
)
def test_each_kind_of_trouble_is_counted_as_what_it_is(
    tmp_path: Path, events: list[tuple[str, int]], counts: Counts
) -> None:
    assert audit(tmp_path, *events) == counts


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    ledger, path = Ledger(tmp_path), tmp_path / "ledger-1"
    path.write_bytes(b"start a 1 10\nstart b")
    assert ledger.jobs("start") == {"a"}
    with path.open("ab") as file:
        file.write(b" 1 20\n")
    assert ledger.jobs("start") == {"a", "b"}


def test_only_what_must_be_zero_is_a_violation() -> None:
    assert Counts(jobs=9, repeated=9, thawed=9).violations == 0
    assert (
        sum(
            Counts(**{name: 1}).violations
            for name in ("lost", "phantoms", "double_runs", "double_effects")
        )
        == 4
    )
