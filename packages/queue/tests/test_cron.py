"""When cron expressions fire, on ordinary days and on those that have 23, 24½ or 25 hours."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from jangada_queue.cron import Cron, UnknownZone, UnreadableCron

BERLIN, SAO_PAULO, LORD_HOWE = "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"
SECOND = timedelta(seconds=1)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def walls(expression: str, zone: str, after: str, count: int) -> list[str]:
    """The fires as the clock on the wall shows them, with its offset."""
    fires = islice(Cron.parse(expression, zone).fires(at(after, zone)), count)
    return [fire.astimezone(ZoneInfo(zone)).strftime("%d %H:%M%z") for fire in fires]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # Spring: the clock jumps from 02:00 to 03:00, in Lord Howe from 02:00 to 02:30.
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["29 03:00+0200", "30 02:30+0200"]),
        ("0,30 2 * * *", BERLIN, "2026-03-28T12:00", ["29 03:00+0200", "30 02:00+0200"]),
        ("0 2,3 * * *", BERLIN, "2026-03-28T12:00", ["29 03:00+0200", "30 02:00+0200"]),
        ("0 */2 * * *", BERLIN, "2026-03-29T00:30", ["29 04:00+0200", "29 06:00+0200"]),
        ("0 30 2 * * *", BERLIN, "2026-03-28T12:00", ["30 02:30+0200", "31 02:30+0200"]),
        ("*/30 * * * *", BERLIN, "2026-03-29T01:00", ["29 01:30+0100", "29 03:00+0200"]),
        ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["04 02:30+1100", "05 02:15+1100"]),
        ("*/15 * * * *", LORD_HOWE, "2026-10-04T01:30", ["04 01:45+1030", "04 02:30+1100"]),
        # Sao Paulo had its last changes in 2018 and 2019, at midnight.
        ("30 0 * * *", SAO_PAULO, "2018-11-03T12:00", ["04 01:00-0200", "05 00:30-0200"]),
        ("0 0 * * *", SAO_PAULO, "2018-11-03T12:00", ["04 01:00-0200", "05 00:00-0200"]),
        ("30 2 * * *", SAO_PAULO, "2026-03-28T12:00", ["29 02:30-0300", "30 02:30-0300"]),
        # Autumn: the clock goes back from 03:00 to 02:00, in Lord Howe from 02:00 to 01:30.
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["25 02:30+0200", "26 02:30+0100"]),
        ("*/30 * * * *", BERLIN, "2026-10-25T02:00", ["25 02:30+0200", "25 02:00+0100"]),
        ("0 30 2 * * *", BERLIN, "2026-10-24T12:00", ["25 02:30+0200", "25 02:30+0100"]),
        ("30 23 * * *", SAO_PAULO, "2019-02-16T12:00", ["16 23:30-0200", "17 23:30-0300"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00", ["05 01:45+1100", "06 01:45+1030"]),
        ("45 * * * *", LORD_HOWE, "2026-04-05T01:40", ["05 01:45+1100", "05 01:45+1030"]),
        ("0 */2 * * *", LORD_HOWE, "2026-04-05T00:00", ["05 02:00+1030", "05 04:00+1030"]),
    ],
)
def test_a_change_of_the_clock(expression: str, zone: str, after: str, expected: list[str]) -> None:
    assert walls(expression, zone, after, 2) == expected


def test_a_time_named_once_does_not_fire_again_in_the_hour_that_comes_twice() -> None:
    """Asked in the midst of it, as for a schedule that is made then."""
    second_showing = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10, the second time
    fire = Cron.parse("30 2 * * *", BERLIN).next(second_showing)
    assert fire == at("2026-10-26T02:30", BERLIN)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("@hourly", "2026-01-01T01:00"),
        ("@daily", "2026-01-02T00:00"),
        ("@WEEKLY", "2026-01-04T00:00"),
        (" @monthly ", "2026-02-01T00:00"),
        ("@yearly", "2027-01-01T00:00"),
        ("*/10 * * * * *", "2026-01-01T00:00:10"),
        ("0 8 * * 1-5", "2026-01-01T08:00"),
        ("0 0 L * *", "2026-01-31T00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("0 12 * * MON#2", "2026-01-12T12:00"),
        ("0 0 13 * FRI", "2026-01-02T00:00"),
    ],
)
def test_what_an_expression_means(expression: str, expected: str) -> None:
    assert Cron.parse(expression, "UTC").next(at("2026-01-01T00:00")) == at(expected)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * * *",
        "61 * * * *",
        "@reboot",
        "a b c d e",
        "0 0 30 2 *",
        "1L/2 * * * *",
    ],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(UnreadableCron, match="no meaning as cron"):
        Cron.parse(expression, "UTC")


def test_an_expression_that_never_matches_is_refused() -> None:
    cron = Cron.parse("* * */20 * 1L", "UTC")
    with pytest.raises(UnreadableCron, match="never matches"):
        cron.next(at("2020-01-01T00:00"))


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "../etc/passwd", "/etc/passwd", "a\0b"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(UnknownZone):
        Cron.parse("@daily", zone)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(UnreadableCron):
        assert Cron.parse(text, "UTC").expression


def part(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        st.sampled_from(["*/2", "*/5", "*/7"]),
        number.map(str),
        st.lists(number, min_size=2, max_size=3).map(lambda found: ",".join(map(str, found))),
    )


FIELDS = (part(0, 59), part(0, 23), part(1, 28), part(1, 12), part(0, 6))
EXPRESSIONS = st.one_of(
    st.tuples(*FIELDS).map(" ".join), st.tuples(part(0, 59), *FIELDS).map(" ".join)
)
ZONES = st.sampled_from(
    [BERLIN, SAO_PAULO, LORD_HOWE, "UTC", "Asia/Kathmandu", "Africa/Casablanca"]
)
CHANGES = ["2026-03-29", "2026-10-25", "2018-11-04", "2019-02-17", "2026-04-05", "2026-10-04"]
MOMENTS = st.builds(
    lambda day, seconds: at(day) + timedelta(seconds=seconds),
    st.sampled_from(CHANGES),
    st.integers(-86400, 86400),
)


def shown(expression: str, wall: datetime) -> bool:
    """Whether the clock shows a time that the expression matches: a field at a time."""
    return next(iter(CronSim(expression, wall - SECOND))) == wall


def skipped(cron: Cron, after: datetime, until: datetime) -> datetime | None:
    """A time between them that the clock on the wall shows and the expression matches."""
    second = after.replace(microsecond=0) + SECOND
    step = SECOND if len(cron.expression.split()) == 6 else timedelta(minutes=1)
    if step > SECOND:
        second = after.replace(second=0, microsecond=0) + step
    while second < until:
        if shown(cron.expression, second.astimezone(cron.zone).replace(tzinfo=None, fold=0)):
            return second
        second += step
    return None


@settings(max_examples=40, deadline=None)
@given(EXPRESSIONS, ZONES, MOMENTS)
def test_fires_only_grow_match_and_leave_none_out(
    expression: str, zone: str, after: datetime
) -> None:
    cron = Cron.parse(expression, zone)
    fires = [after, *islice(cron.fires(after), 5)]
    assert all(earlier < later for earlier, later in pairwise(fires))
    names_its_time = len(expression.split()) == 5 and "*" not in (
        expression[0],
        expression.split()[1][0],
    )
    for earlier, later in pairwise(fires):
        wall = later.astimezone(cron.zone).replace(tzinfo=None, fold=0)
        before = (later - SECOND).astimezone(cron.zone).replace(tzinfo=None, fold=0)
        ends_a_gap = wall - before > SECOND
        assert shown(cron.expression, wall) or (names_its_time and ends_a_gap)
        near = max(earlier, later - timedelta(minutes=360 if len(expression.split()) == 5 else 10))
        missing = skipped(cron, near, later)
        if names_its_time and missing is not None:
            # The clock shows it for the second time.
            local = missing.astimezone(cron.zone)
            assert local.fold == 1
        else:
            assert missing is None
