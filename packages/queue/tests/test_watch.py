"""Who may declare others dead: only one that saw the server without a gap."""

from datetime import UTC, datetime, timedelta

from jangada_queue.watch import Watch

TIMEOUT = timedelta(seconds=10)
START = datetime(2026, 3, 1, tzinfo=UTC)


def see(watch: Watch, *seconds: float, drift: float = 0) -> list[bool]:
    return [watch.see(START + timedelta(seconds=s + drift), 100 + s) for s in seconds]


def test_a_watch_is_ready_after_a_gap_free_timeout() -> None:
    assert see(Watch(TIMEOUT), 0, 4, 8, 9.9, 10, 14) == [False] * 4 + [True] * 2


def test_a_gap_begins_the_watch_anew() -> None:
    assert see(Watch(TIMEOUT), 0, 5, 10, 16, 21, 25, 26) == [False, False, True] + [False] * 3 + [
        True
    ]


def test_a_lost_connection_begins_the_watch_anew() -> None:
    watch = Watch(TIMEOUT)
    see(watch, 0, 5, 10)
    watch.lose()
    assert see(watch, 11, 15, 19, 21) == [False, False, False, True]


def test_a_pause_that_only_the_server_s_clock_shows_is_a_gap() -> None:
    watch = Watch(TIMEOUT)
    assert see(watch, 0, 5, 10)[-1]
    assert see(watch, 11, drift=600) == [False]


def test_a_pause_that_only_our_clock_shows_is_a_gap() -> None:
    watch = Watch(TIMEOUT)
    assert see(watch, 0, 5, 10)[-1]
    assert see(watch, 21, drift=-10) == [False]


def test_a_clock_that_was_set_back_begins_the_watch_anew_and_is_told() -> None:
    """Not waiting for it to catch up: that could take an hour."""
    watch = Watch(TIMEOUT)
    assert see(watch, 0, 5, 10)[-1]
    assert see(watch, 11, drift=-3600) == [False]
    assert watch.is_set_back
    assert see(watch, 15, 19, 21, drift=-3600) == [False, False, True]
    assert not watch.is_set_back
