"""The ledger of the queue bench: what makes a figure void must be noticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from queues.contestants import CONTESTANTS
from queues.ledger import PATH, Ledger
from queues.report import STOCK, TARGETS, Target
from toolchain import ROOT

RECORD = "import sys, queues.ledger as l; [l.record(int(index)) for index in sys.argv[1:]]"
FORK = """
import os, queues.ledger as l
l.record(0)
if os.fork() == 0:
    l.record(1)
    os._exit(0)
os.wait()
"""
THREADS = """
import queues.ledger as l
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    list(pool.map(l.record, range(1000)))
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def run(ledger: Ledger, program: str, *arguments: str) -> None:
    """A process that runs jobs."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "bench"), PATH: str(ledger.path)}
    subprocess.run([sys.executable, "-c", program, *arguments], env=environ, check=True)  # noqa: S603 - ours


def test_jobs_that_ran_once_each_are_in_order(ledger: Ledger) -> None:
    run(ledger, RECORD, "0", "2")
    run(ledger, RECORD, "1")
    assert ledger.count() == 3
    assert [run.index for run in ledger.runs()] == [0, 2, 1]
    assert ledger.fault(range(3)) is None


def test_a_job_that_did_not_run_is_noticed(ledger: Ledger) -> None:
    run(ledger, RECORD, "0", "2")
    assert ledger.fault(range(3)) == "1 of 3 jobs did not run, 0 ran more than once"


def test_a_job_that_ran_twice_is_noticed(ledger: Ledger) -> None:
    run(ledger, RECORD, "0", "1")
    run(ledger, RECORD, "1")
    assert ledger.fault(range(2)) == "0 of 2 jobs did not run, 1 ran more than once"


def test_a_record_that_got_lost_is_noticed_by_its_process_counter(ledger: Ledger) -> None:
    run(ledger, RECORD, "0", "1", "2")
    whole = ledger.path.read_bytes()
    size = len(whole) // 3
    ledger.path.write_bytes(whole[:size] + whole[2 * size :])
    assert ledger.fault(range(2, 3)) == "the processes counted other jobs than they wrote"


def test_a_forked_process_counts_by_itself(ledger: Ledger) -> None:
    run(ledger, FORK)
    assert [found.count for found in ledger.runs()] == [1, 1]
    assert ledger.fault(range(2)) is None


def test_threads_of_a_process_share_its_counter(ledger: Ledger) -> None:
    run(ledger, THREADS)
    assert sorted(found.count for found in ledger.runs()) == list(range(1, 1001))
    assert ledger.fault(range(1000)) is None


def test_a_target_is_held_from_its_bound_on() -> None:
    least, most = Target("", STOCK, 2.0), Target("", STOCK, 2.0, is_at_most=True)
    assert [least.is_held(value) for value in (1.9, 2.0, 2.1)] == [False, True, True]
    assert [most.is_held(value) for value in (1.9, 2.0, 2.1)] == [True, True, False]


def test_targets_name_contestants_that_there_are() -> None:
    named = {name for target in TARGETS for name, _ in (target.ours, target.than or STOCK)}
    assert named <= {contestant.name for contestant in CONTESTANTS}


def test_every_rival_has_a_lock_and_an_adapter() -> None:
    for contestant in CONTESTANTS:
        assert (ROOT / f"bench/queues/adapters/{contestant.adapter}.py").exists()
        if contestant.rival:
            assert (ROOT / f"locks/bench-{contestant.rival}.txt").exists()
