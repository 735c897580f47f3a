"""The bench of autoscalers: what it draws, what it counts, and when a target is held."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from autoscalers.contestants import CONTESTANTS, JANGADA, KEDA
from autoscalers.load import LEAD, LONG, STEADY, TRICKLE, load
from autoscalers.measured import Measured, interrupted, measured, waits_of
from autoscalers.report import ROWS, markdown, verdicts
from autoscalers.watching import Lifetimes, Sizes
from chaos.ledger import Ledger
from cluster.life import Exit

from jangada_operator.simulation.trace import Trace

HPA_STABILISATION = 300.0
FIRST, SECOND = 1, 2
TRACE = Trace("two", 10.0, [0.0, 1.0], [2.0, 4.0])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """The second job is started after 7 s, killed with its process, and ends in another one."""
    events = [
        *(("perhaps", "a", 9, 100.0), ("enqueued", "a", 9, 100.0)),
        *(("perhaps", "b", 9, 101.0), ("enqueued", "b", 9, 101.0)),
        *(("start", "a", FIRST, 103.0), ("end", "a", FIRST, 105.0)),
        *(("start", "b", FIRST, 108.0), ("killed", "-", FIRST, 109.0)),
        *(("start", "b", SECOND, 110.0), ("end", "b", SECOND, 114.0)),
    ]
    lines = (f"{what} {job} {pid} {at * 1e9:.0f}\n" for what, job, pid, at in events)
    (tmp_path / "ledger-9").write_text("".join(lines), "utf-8")
    return Ledger(tmp_path)


def ended(held: int | None, *, was_asked: bool = True) -> Exit:
    return Exit("test", "pod", "uid", 0, was_asked, False, held, 1.0)


def found(ledger: Ledger, name: str = JANGADA.name, exits: Sequence[Exit] = ()) -> Measured:
    """Two replicas were asked for after 2 s, and their pods lived for 20 s and 18 s."""
    lifetimes, sizes = Lifetimes(), Sizes()
    for at, there in ((99.0, ""), (102.0, "xy"), (120.0, "x"), (122.0, "")):
        lifetimes.note(at, set(there))
    for at, size in ((99.0, 0), (102.0, 2), (121.0, 0)):
        sizes.note(at, size)
    return measured(name, trace=TRACE, ledger=ledger, lifetimes=lifetimes, sizes=sizes, exits=exits)


def test_a_load_is_the_same_for_the_same_seed_only() -> None:
    assert load(7) == load(7)
    assert load(7) != load(8)


def test_a_load_steps_up_and_ends_in_a_trickle_in_which_long_jobs_run() -> None:
    trace = load(1)
    first, long = trace.arrivals[0], min(LONG)
    jobs = list(zip(trace.arrivals, trace.services, strict=True))
    is_long = [at > first + STEADY for at, takes in jobs if takes >= long]
    in_step = sum(at <= first + STEADY for at in trace.arrivals)
    assert 0 <= first <= LEAD + 5
    assert in_step > 0.8 * len(jobs)
    assert len(is_long) > 5
    assert all(is_long)
    assert TRICKLE > HPA_STABILISATION


def test_pods_count_from_when_they_are_first_there_until_they_are_gone() -> None:
    pods = Lifetimes()
    for at, there in ((0.0, ""), (1.0, "a"), (2.0, "ab"), (5.0, "ab"), (7.0, "b")):
        pods.note(at, set(there))
    assert (pods.count, pods.most, pods.pod_seconds, pods.ended_at) == (1, 2, math.inf, math.inf)
    pods.note(10.0, set())
    assert (pods.count, pods.most, pods.pod_seconds, pods.ended_at) == (0, 2, 14.0, 10.0)


def test_a_size_is_noted_when_it_changes() -> None:
    sizes = Sizes()
    assert (sizes.now, sizes.left_zero_at) == (None, math.inf)
    for at, size in ((0.0, 0), (1.0, 0), (2.0, 3), (3.0, 3), (4.0, 0)):
        sizes.note(at, size)
    assert sizes.changes == [(0.0, 0), (2.0, 3), (4.0, 0)]
    assert (sizes.now, sizes.left_zero_at) == (0, 2.0)


def test_a_job_waits_until_its_first_start(ledger: Ledger) -> None:
    assert waits_of(ledger) == [3.0, 7.0]


def test_a_job_that_never_starts_waits_for_ever(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write("perhaps", "a")
    assert waits_of(ledger) == [math.inf]


def test_a_job_that_ends_elsewhere_was_interrupted(ledger: Ledger) -> None:
    assert interrupted(ledger) == 1
    assert ledger.audit().violations == 0


def test_what_was_watched_becomes_figures(ledger: Ledger) -> None:
    exits = [ended(0), ended(1), ended(1, was_asked=False)]
    both = found(ledger, exits=exits)
    figures = both.figures
    assert (both.decided, both.first_wait, both.idle) == (2.0, 3.0, 8.0)
    assert (both.pods, both.most, both.asked, both.busy) == (2, 2, 2, 1)
    assert (figures.jobs, figures.in_time, figures.in_time_once_possible) == (2, 1, 2)
    assert (figures.wait(0.5), figures.wait(0.95)) == (3.0, 7.0)
    assert (figures.pod_seconds, figures.least_pod_seconds) == (38.0, 6.0)
    assert (figures.interrupted, both.violations) == (1, 0)


def test_a_target_that_is_missed_is_told(ledger: Ledger) -> None:
    ours, theirs = found(ledger), found(ledger, KEDA.name)
    whole = replace(ours, figures=replace(ours.figures, interrupted=0))
    assert [each.is_held for each in verdicts([whole, theirs])] == [True] * 5
    late = replace(whole, decided=2.1, busy=1, violations=1)
    worse = replace(late, figures=ours.figures)
    assert not any(each.is_held for each in verdicts([worse, replace(theirs, violations=1)]))


def test_what_never_was_decided_is_not_held(ledger: Ledger) -> None:
    never = replace(found(ledger), decided=math.inf)
    assert verdicts([never])[0].found == "never"
    assert not verdicts([never])[0].is_held


def test_the_table_has_a_column_for_each(ledger: Ledger) -> None:
    lines = markdown([found(ledger, each.name) for each in CONTESTANTS]).splitlines()
    assert len(lines) == len(ROWS) + 2
    assert {line.count("|") for line in lines} == {len(CONTESTANTS) + 2}
