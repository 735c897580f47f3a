"""Worked examples of the documentation of Kubernetes and KEDA."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from jangada_operator.simulation.cluster import Autoscaler, Cluster, Terms
from jangada_operator.simulation.outcome import Outcome
from jangada_operator.simulation.rivals.hpa import (
    Behavior,
    CpuAutoscaler,
    for_average_value,
    for_utilization,
)
from jangada_operator.simulation.rivals.keda import as_documented, as_tuned
from jangada_operator.simulation.trace import Trace
from jangada_queue.policy.wanted import Wanted

WANTED = Wanted(most=100)


@pytest.mark.parametrize(
    ("metric", "target", "replicas", "expected"),
    [
        (50, 5, 1, 10),
        (50, 5, 10, 10),
        (54, 5, 10, 10),
        (56, 5, 10, 12),
        (45, 5, 10, 10),
        (44, 5, 10, 9),
        (0, 5, 10, 0),
    ],
)
def test_an_average_value_asks_for_the_metric_over_the_target(
    metric: float, target: float, replicas: int, expected: int
) -> None:
    """Within a tenth of the target nothing is changed."""
    assert for_average_value(metric, target, replicas) == expected


@pytest.mark.parametrize(
    ("used", "unready", "target", "replicas", "expected"),
    [
        pytest.param([1.0] * 3, 0, 50, 3, 6, id="twice the target doubles it"),
        pytest.param([0.25] * 4, 0, 50, 4, 2, id="half the target halves it"),
        pytest.param([0.9] * 50, 0, 75, 50, 60, id="90 % of 75 %: 50 become 60"),
        pytest.param([0.76] * 50, 0, 70, 50, 50, id="within the tolerance"),
        pytest.param([0.9] * 4, 4, 70, 8, 8, id="who starts counts as idle: no longer above"),
        pytest.param([1.0] * 8, 2, 70, 10, 12, id="who starts counts as idle: still above"),
        pytest.param([0.3] * 4, 4, 60, 8, 2, id="reduced by those that are ready"),
        pytest.param([], 2, 70, 2, 2, id="nothing is known"),
    ],
)
def test_utilization_scales_what_is_there(
    used: Sequence[float], unready: int, target: int, *, replicas: int, expected: int
) -> None:
    assert for_utilization(used, unready, target, replicas) == expected


def sizes(
    recommended: Sequence[int], current: int, *, least: int = 1, most: int = 100
) -> list[int]:
    behavior, found = Behavior(), []
    for number, each in enumerate(recommended):
        current = behavior.size(each, current, 15.0 * number, least=least, most=most)
        found.append(current)
    return found


def test_a_pool_grows_by_four_or_doubles() -> None:
    assert sizes([100] * 6, 1) == [5, 10, 20, 40, 80, 100]


def test_a_pool_shrinks_to_the_highest_recommendation_of_five_minutes() -> None:
    assert sizes([8, *[3] * 20, 2], 8) == [*[8] * 20, 3, 3]


def test_a_pool_never_shrinks_below_its_minimum_nor_grows_beyond_its_maximum() -> None:
    assert sizes([0] * 21, 3, least=2)[-1] == 2
    assert sizes([50], 8, most=9) == [9]


def ran(autoscaler: Autoscaler, jobs: Sequence[tuple[float, float]], seconds: float) -> Outcome:
    trace = Trace("small", seconds, [at for at, _ in jobs], [takes for _, takes in jobs])
    return Cluster(trace, Terms()).run(autoscaler)


def test_keda_starts_a_pool_at_its_poll_and_ends_it_after_the_cooldown() -> None:
    """A job at 31 s is seen at 60 s; the last poll with a lag is 60 s, so the end is at 390 s."""
    outcome = ran(as_documented(WANTED), [(31.0, 1.0)], 600.0)
    assert outcome.sizes == [(0, 0), (60, 1), (390, 0)]
    assert outcome.waits == [34]


def test_keda_as_documented_counts_what_waits_in_fives() -> None:
    outcome = ran(as_documented(WANTED), [(1.0, 200.0)] * 120, 31.0)
    assert outcome.sizes[:3] == [(0, 0), (30, 5), (45, 10)]


def test_keda_as_documented_interrupts_long_jobs() -> None:
    """Nothing waits any more when its cooldown is over, though something runs."""
    outcome = ran(as_documented(WANTED), [(1.0, 600.0)], 700.0)
    assert outcome.interrupted >= 1


def test_keda_as_tuned_keeps_a_replica_and_counts_what_runs() -> None:
    jobs = [(1.0, 600.0)] * 40
    trace = Trace("long", 700.0, [at for at, _ in jobs], [takes for _, takes in jobs])
    outcome = Cluster(trace, Terms()).run(as_tuned(WANTED, trace, slots=10))
    assert outcome.sizes == [(0, 1), (15, 5)]
    assert outcome.interrupted == 0


def test_an_hpa_enlarges_a_busy_pool_and_keeps_one_replica() -> None:
    """Half of the first interval is busy: too little. All of the second is: from 1 to 2."""
    outcome = ran(CpuAutoscaler(WANTED), [(7.5, 60.0)] * 10, 900.0)
    assert outcome.sizes[:2] == [(0, 1), (30, 2)]
    assert outcome.sizes[-1][1] == 1


def test_every_rival_keeps_to_the_limits() -> None:
    wanted = Wanted(least=2, most=3, start_within=timedelta(seconds=5))
    jobs = [(30.0, 30.0)] * 200
    trace = Trace("flood", 900.0, [at for at, _ in jobs], [takes for _, takes in jobs])
    for autoscaler in (
        as_documented(wanted),
        as_tuned(wanted, trace, slots=10),
        CpuAutoscaler(wanted),
    ):
        outcome = Cluster(trace, Terms()).run(autoscaler)
        assert {size for _, size in outcome.sizes} == {2, 3}
