"""How many messages a dispatcher keeps ready."""

from datetime import timedelta

import pytest

from jangada.jobs_settings import JobsSettings
from jangada_worker.windows import Windows

SETTINGS = JobsSettings(min_window=16, window_ahead=timedelta(milliseconds=50))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last value is the time."""
    times = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: times[-1])
    return times


def publish(made: Windows, clock: list[float], per_second: int, seconds: int) -> None:
    for _ in range(10 * seconds):
        clock.append(clock[-1] + 0.1)
        made.count("q", per_second // 10)


def test_without_a_pace_it_is_the_slots_or_the_least() -> None:
    made = Windows(SETTINGS)
    assert made.size("q", 3) == 16
    assert made.size("q", 40) == 40


def test_it_holds_what_is_taken_in_a_moment(clock: list[float]) -> None:
    made = Windows(SETTINGS)
    publish(made, clock, per_second=2_000, seconds=20)
    assert made.size("q", 40) == pytest.approx(100, abs=2)
    assert made.size("other", 40) == 40


def test_it_holds_no_more_than_four_times_the_slots(clock: list[float]) -> None:
    made = Windows(SETTINGS)
    publish(made, clock, per_second=10_000, seconds=20)
    assert made.size("q", 40) == 160


def test_a_pace_is_forgotten_in_seconds(clock: list[float]) -> None:
    made = Windows(SETTINGS)
    publish(made, clock, per_second=2_000, seconds=20)
    publish(made, clock, per_second=0, seconds=10)
    assert made.size("q", 40) == 40
