from bisect import bisect_left
from functools import cache
from random import Random

import pytest

from jangada_operator.simulation.trace import Trace
from jangada_operator.simulation.traces import BY_NAME, HOUR, MINUTE, about, load

loaded = cache(load)


def rate(trace: Trace, start: float, end: float) -> float:
    count = bisect_left(trace.arrivals, end) - bisect_left(trace.arrivals, start)
    return count / (end - start)


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "diurnal"])
def test_a_seed_gives_the_same_load_again(name: str) -> None:
    first, again, other = (load(name, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.arrivals != other.arrivals
    assert first.name == name


@pytest.mark.parametrize("name", BY_NAME)
def test_jobs_come_in_order_within_the_trace_and_take_some_time(name: str) -> None:
    trace = loaded(name, 1)
    assert list(trace.arrivals) == sorted(trace.arrivals)
    assert 0 <= trace.arrivals[0] <= trace.arrivals[-1] < trace.seconds
    assert min(trace.services) > 0


@pytest.mark.parametrize(
    ("name", "start", "end", "expected"),
    [
        ("step", 0, MINUTE, 0),
        ("step", MINUTE, 21 * MINUTE, 200),
        ("step", 21 * MINUTE, 25 * MINUTE, 0),
        ("ramp", 0, 2 * MINUTE, 2),
        ("ramp", 19 * MINUTE, 21 * MINUTE, 39),
        ("diurnal", 2.5 * HOUR, 3.5 * HOUR, 1),
        ("diurnal", 14.5 * HOUR, 15.5 * HOUR, 6),
        ("long-jobs", 0, HOUR, 0.5),
        ("long-jobs", HOUR, 2 * HOUR, 0.05),
        ("heavy-tailed", 0, 2 * HOUR, 4),
        ("trickle", 0, 6 * HOUR, 1 / 180),
    ],
)
def test_as_many_jobs_come_as_described(
    name: str, start: float, end: float, expected: float
) -> None:
    assert rate(loaded(name, 1), start, end) == pytest.approx(expected, rel=0.2)


def test_three_thousand_jobs_come_at_once() -> None:
    trace = load("bursts", 1)
    assert [trace.arrivals.count(minute * MINUTE) for minute in (5, 15, 25, 35, 45, 55)] == [
        *(3000, 3000, 3000, 3000, 3000, 3000)
    ]


def test_few_jobs_of_a_heavy_tail_have_most_of_the_work() -> None:
    services = sorted(load("heavy-tailed", 1).services)
    longest = services[-len(services) // 100 :]
    assert services[len(services) // 2] < 1
    assert sum(longest) > sum(services) / 5


def test_service_times_have_the_mean_that_is_asked_for() -> None:
    random = Random(1)  # noqa: S311 - as loads are drawn
    drawn = [about(3.0)(random) for _ in range(20000)]
    assert sum(drawn) / len(drawn) == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize(
    ("services", "kinds"), [([1.0], ()), ([1.0, 1.0], ["mail"])], ids=["service", "kind"]
)
def test_each_job_needs_all_that_others_have(services: list[float], kinds: list[str]) -> None:
    with pytest.raises(ValueError, match="job"):
        Trace("broken", 1.0, [0.0, 0.0], services, kinds=kinds)
