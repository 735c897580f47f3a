import json
from collections.abc import Sequence

import pytest

from jangada_operator.simulation.cluster import Terms
from jangada_operator.simulation.contest import ORACLE, OURS
from jangada_operator.simulation.figures import (
    Figures,
    figures_of,
    ratio_to,
    reversals,
    total,
    with_totals,
)
from jangada_operator.simulation.outcome import Outcome
from jangada_operator.simulation.tables import markdown, objects
from jangada_operator.simulation.trace import Trace

ENDLESS = float("inf")


def measured(
    waits: Sequence[float], *, name: str = "small", policy: str = OURS, pod_seconds: float = 100.0
) -> Figures:
    outcome = Outcome(
        waits=list(waits),
        pod_seconds=pod_seconds,
        ended_at=1800.0,
        sizes=[(0.0, 1), (5.0, 3), (9.0, 2)],
    )
    trace = Trace(name, 1800.0, [0.0] * len(waits), [5.0] * len(waits))
    return figures_of(trace, policy, outcome, within=5.0, terms=Terms())


def test_shares_count_what_started_within_the_objective() -> None:
    figures = measured([0, 5, 5.1, 10, 10.1, ENDLESS, 0, 0])
    assert figures.share_in_time == 4 / 8
    assert figures.share_once_possible == 6 / 8


@pytest.mark.parametrize(
    ("part", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.001, 1)]
)
def test_quantiles_are_waits_of_jobs(part: float, expected: float) -> None:
    assert measured(range(100, 0, -1)).wait(part) == expected


def test_a_trace_without_jobs_is_all_in_time() -> None:
    figures = measured([])
    assert (figures.share_in_time, figures.share_once_possible, figures.wait(0.95)) == (1, 1, 0)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([], 0), ([1], 0), ([1, 2, 3], 0), ([1, 2, 1], 1), ([1, 2, 2, 1, 0, 4], 2)],
)
def test_a_reversal_is_a_change_of_direction(sizes: Sequence[int], expected: int) -> None:
    assert reversals(sizes) == expected


def test_decisions_are_all_changes_and_reversals_are_told_by_the_hour() -> None:
    figures = measured([0])
    assert (figures.decisions, figures.reversals, figures.reversals_per_hour) == (2, 1, 2)


def test_the_sum_has_the_waits_of_all_jobs() -> None:
    both = total([measured([0, 9]), measured([3, 1, 2])])
    assert (both.trace, both.jobs, both.in_time, both.waits) == ("all", 5, 4, [0, 1, 2, 3, 9])
    assert both.pod_seconds == 200
    assert both.least_pod_seconds == 2.5


def test_sums_are_added_where_there_are_several_traces() -> None:
    one = [measured([0]), measured([0], policy=ORACLE)]
    two = [*one, measured([0], name="other"), measured([0], name="other", policy=ORACLE)]
    assert with_totals(one) == one
    assert [(each.trace, each.policy) for each in with_totals(two)[4:]] == [
        ("all", OURS),
        ("all", ORACLE),
    ]


def test_pod_seconds_are_compared_with_the_oracle() -> None:
    oracle = measured([0], policy=ORACLE, pod_seconds=80.0)
    assert ratio_to(measured([0]), oracle) == 1.25
    assert ratio_to(measured([0]), None) is None


def test_a_program_reads_strict_json_and_a_person_a_table() -> None:
    figures = [measured([0, ENDLESS]), measured([0, 1], policy=ORACLE, pod_seconds=50.0)]
    first, _ = (json.loads(json.dumps(each, allow_nan=False)) for each in objects(figures))
    assert first["wait_longest_seconds"] is None
    assert first["pod_seconds_of_oracle"] == 2.0
    assert "| small | jangada | 50.00 % | 50.00 % | 0.00 | never |" in markdown(figures)


def test_what_an_outcome_says_of_any_moment() -> None:
    outcome = Outcome(waits=[0.0, 4.0, ENDLESS])
    for at, size in [(0.0, 1), (2.0, 1), (3.0, 5), (3.0, 2), (6.0, 0)]:
        outcome.note_size(at, size)
    assert outcome.sizes == [(0.0, 1), (3.0, 2), (6.0, 0)]
    assert outcome.size_at([0.0, 2.9, 3.0, 7.0]) == [1, 1, 2, 0]
