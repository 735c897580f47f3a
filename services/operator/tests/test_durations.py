from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jangada_operator.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("5s", 5),
        ("1m30s", 90),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("5.s", 5),
        ("300ms", 0.3),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("250μs", 0.00025),
        ("1500ns", 0.000001),
        ("24h", 86400),
        ("1s1h", 3601),
    ],
)
def test_what_go_writes_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "write 30s, 5m or 1h30m"),
        ("soon", "write 30s, 5m or 1h30m"),
        ("-5s", "write 30s, 5m or 1h30m"),
        ("5 s", "write h, m, s, ms, us or ns"),
        ("5", "write 5s, 5m or 5h"),
        ("1h30", "write 30s, 30m or 30h"),
        ("7d", "write hours, as in 24h"),
        ("5sec", "write h, m, s, ms, us or ns"),
        ("5S", "write h, m, s, ms, us or ns"),
        ("١s", "write 30s, 5m or 1h30m"),
        ("9999999h", "longer than a hundred years"),
    ],
)
def test_an_error_says_how_to_mend_it(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        parse_duration(text)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(hours=24), "24h"),
        (timedelta(milliseconds=1500), "1.5s"),
        (timedelta(hours=1, seconds=10), "1h10s"),
        (timedelta(microseconds=1), "0.000001s"),
    ],
)
def test_durations_are_written_as_short_as_can_be(span: timedelta, text: str) -> None:
    assert format_duration(span) == text


@given(st.timedeltas(timedelta(0), timedelta(days=3650)))
def test_what_is_written_reads_the_same(span: timedelta) -> None:
    assert parse_duration(format_duration(span)) == span
