"""Rates that are decayed over a minute."""

import pytest

from jangada_queue.rates import DecayedRate
from jangada_queue.service_times import BUCKETS, ServiceTimes, bucket_of


def test_a_steady_rate_is_found_within_minutes() -> None:
    rate = DecayedRate()
    for second in range(301):
        rate.see(second * 7, 1000 + second)
    assert rate.per_second == pytest.approx(7, rel=0.01)


def test_a_rate_is_forgotten_within_minutes() -> None:
    rate = DecayedRate()
    for second in range(301):
        rate.see(second * 7, second)
    assert rate.see(2100, 600) < 0.1


def test_a_total_that_begins_anew_is_no_arrival_and_no_departure() -> None:
    rate = DecayedRate()
    rate.see(1000, 0)
    assert rate.see(3, 1) == 0
    assert rate.see(4, 2) > 0


def test_how_often_it_is_looked_at_does_not_matter() -> None:
    often, seldom = DecayedRate(), DecayedRate()
    for tenth in range(601):
        often.see(tenth, tenth / 10)
    for second in range(0, 61, 20):
        seldom.see(second * 10, second)
    assert often.per_second == pytest.approx(seldom.per_second, rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0, 0), (0.001, 0), (0.0011, 1), (0.0012, 1), (0.0013, 2), (1e9, 99)]
)
def test_a_bucket_holds_all_up_to_its_bound(seconds: float, bucket: int) -> None:
    assert bucket_of(seconds) == bucket
    assert bucket < BUCKETS


def test_no_times_have_neither_mean_nor_quantile() -> None:
    assert (ServiceTimes().mean(), ServiceTimes().quantile(0.95)) == (None, None)


def test_merged_times_are_those_of_both() -> None:
    some, more = ServiceTimes(), ServiceTimes()
    some.add(1.0, "a")
    more.add(3.0, "a")
    more.add(3.0, "a")
    some.merge(more)
    assert (some.count, some.mean()) == (3, pytest.approx(7 / 3))
    assert some.quantile(0.3) == pytest.approx(1.0, rel=0.2)
    assert some.quantile(0.9) == pytest.approx(3.0, rel=0.2)
