"""What the policy remembers: rates, start times, sizes that were needed."""

from random import Random

import pytest

from jangada_queue.policy.history import START, History, needed, observed
from jangada_queue.policy.observation import Observation, Seen, Signals, Stage
from jangada_queue.rates import DecayedRate


def signals(arrived: int, rate: float) -> Signals:
    return Signals(backlog=0, in_flight=0, arrived=arrived, arrival_rate=rate)


def watched(counts: list[int]) -> list[float]:
    """The rate after each second in which so many came."""
    history, decayed, total, rates = History(), DecayedRate(), 0, []
    for now, count in enumerate(counts):
        total += count
        told = signals(total, decayed.see(total, now))
        history = observed(history, Observation(replicas=0, pool=[], signals=told), now)
        assert history.rate is not None
        rates.append(history.rate)
    return rates


def test_a_step_in_the_load_is_seen_within_two_looks() -> None:
    rates = watched([0] * 60 + [200] * 5)
    assert rates[59] == 0
    assert rates[61] == pytest.approx(200, rel=0.3)


def test_the_end_of_a_load_is_seen_at_once() -> None:
    rates = watched([200] * 60 + [0] * 5)
    assert rates[59] == pytest.approx(200, rel=0.4)
    assert rates[60] <= 9
    assert rates[64] <= 2


def test_one_batch_is_no_stream() -> None:
    rates = watched([0] * 60 + [10_000] + [0] * 5)
    assert max(rates) < 200
    assert rates[61] <= 9


def test_a_steady_load_is_hardly_taken_for_another() -> None:
    random = Random(1)  # noqa: S311 - a load
    counts = [sum(random.random() < 0.02 for _ in range(500)) for _ in range(600)]
    rates = watched(counts)[120:]
    assert min(rates) > 8
    assert max(rates) < 12


def test_a_count_that_begins_anew_is_none() -> None:
    """A server that lost its data counts from nothing again."""
    history = History()
    for now, total in enumerate([1000, 1010, 5, 15]):
        told = signals(total, 10.0)
        history = observed(history, Observation(replicas=0, pool=[], signals=told), now)
        assert history.rate is not None
        assert 0 <= history.rate <= 60


def replica(number: int, stage: Stage, age: float) -> Seen:
    return Seen(id=str(number), stage=stage, age=age, slots=10)


def test_start_times_are_learned_from_replicas_that_were_seen_starting() -> None:
    history = History()
    assert history.start_seconds == START
    for number, took in enumerate([4.0, 5.0, 30.0, 5.0, 6.0]):
        for stage, age in ((Stage.STARTING, 1.0), (Stage.READY, took)):
            seen = Observation(replicas=1, pool=[replica(number, stage, age)], signals=None)
            history = observed(history, seen, 0.0)
    assert history.start_seconds == 6.0


def test_a_replica_that_was_there_before_teaches_nothing() -> None:
    seen = Observation(replicas=1, pool=[replica(1, Stage.READY, 9999.0)], signals=None)
    assert observed(History(), seen, 0.0).start_seconds == START


def test_only_sizes_are_kept_that_no_later_one_exceeds() -> None:
    history = History()
    for now, size in enumerate([3, 5, 2, 4, 1]):
        history = needed(history, size, 0, now=now, after=60.0, is_waiting=False)
    assert list(history.needs) == [(1, 5), (3, 4), (4, 1)]
    later = needed(history, 0, 0, now=62.0, after=60.0, is_waiting=False)
    assert list(later.needs) == [(3, 4), (4, 1), (62.0, 0)]


def test_absent_signals_leave_a_gap() -> None:
    seen = Observation(replicas=1, pool=[], signals=signals(10, 1.0))
    history = needed(observed(History(), seen, 5.0), 3, 2, now=5.0, after=60.0, is_waiting=False)
    assert history.watched_since == 5.0
    blind = observed(history, Observation(replicas=1, pool=[], signals=None), 6.0)
    assert (blind.watched_since, blind.needs, blind.streams) == (None, (), ())
    assert (blind.arrivals, blind.rate) == ((), None)
