from datetime import timedelta

import pytest

from jangada_operator.durations import parse_duration


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
