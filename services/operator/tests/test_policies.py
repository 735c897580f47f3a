"""What every policy is held to on the beginning of every load."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jangada_operator.simulation.cluster import Terms
from jangada_operator.simulation.contest import ORACLE, OURS, POLICIES, Entry, run
from jangada_operator.simulation.trace import Trace
from jangada_operator.simulation.traces import assembled
from jangada_queue.policy.wanted import Wanted

WANTED = Wanted(most=100)


def test_the_oracle_starts_all_but_one_of_a_hundred_in_time(short_traces: list[Trace]) -> None:
    entry = Entry(ORACLE, ORACLE, WANTED)
    for trace in short_traces:
        figures = run(trace, entry, Terms()).figures
        assert figures.share_in_time >= 0.99, trace.name
        assert figures.interrupted == 0


@pytest.mark.parametrize("start", [0.0, 2.0, 20.0])
def test_the_oracle_knows_how_long_replicas_take_to_start(start: float) -> None:
    """Only who comes before a replica could be there waits for longer."""
    jobs = [(start + 1 + number // 100 * 7.0, 2.0) for number in range(400)]
    trace = assembled("batches", 60.0, jobs)
    figures = run(trace, Entry(ORACLE, ORACLE, WANTED), Terms(start=start)).figures
    assert figures.share_in_time == 1.0


@settings(max_examples=25, deadline=None)
@given(
    jobs=st.lists(st.tuples(st.floats(6, 100), st.floats(0.01, 30)), max_size=100),
    within=st.floats(0.5, 20),
)
def test_the_oracle_is_late_for_nothing_that_it_can_see(
    jobs: list[tuple[float, float]], within: float
) -> None:
    wanted = Wanted(most=100, start_within=timedelta(seconds=within))
    trace = assembled("any", 100.0, jobs)
    figures = run(trace, Entry(ORACLE, ORACLE, wanted), Terms(start=5.0)).figures
    assert figures.in_time == figures.jobs
    assert figures.pod_seconds >= figures.least_pod_seconds - 1e-6


def test_ours_interrupts_nothing_and_keeps_to_its_limits(short_traces: list[Trace]) -> None:
    wanted = Wanted(least=1, most=12)
    for trace in short_traces:
        found = run(trace, Entry(OURS, OURS, wanted), Terms())
        assert found.figures.interrupted == 0
        assert all(wait < float("inf") for wait in found.outcome.waits)
        assert all(1 <= size <= 12 for _, size in found.outcome.sizes), trace.name


@pytest.mark.parametrize("policy", POLICIES)
def test_two_runs_are_the_same_to_the_bit(policy: str, short_trace: Trace) -> None:
    first, again = (run(short_trace, Entry(policy, policy, WANTED), Terms()) for _ in range(2))
    assert first.outcome == again.outcome
    assert first.figures == again.figures


def test_announced_jobs_find_their_replica() -> None:
    """Two hundred fall due at one moment; ours starts replicas before it."""
    arrivals, services = [60.0] * 200, [5.0] * 200
    told = Trace("told", 120.0, arrivals, services, announced=arrivals)
    untold = Trace("untold", 120.0, arrivals, services)
    ours = Entry(OURS, OURS, WANTED)
    first, second = (run(trace, ours, Terms()).figures for trace in (told, untold))
    assert first.share_in_time > second.share_in_time


def test_nobody_needs_fewer_pod_seconds_than_the_work_takes(short_trace: Trace) -> None:
    for policy in POLICIES:
        figures = run(short_trace, Entry(policy, policy, WANTED), Terms()).figures
        assert figures.pod_seconds > figures.least_pod_seconds
        assert figures.share_in_time <= figures.share_once_possible <= 1
