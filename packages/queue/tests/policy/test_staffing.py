"""How many slots a load needs, against what the books say."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jangada_queue.policy.staffing import EXACT, FULLEST, Load, needs

LATE = 0.05
STREAM = Load(
    rate=10.0,
    service=1.0,
    variation=1.0,
    running=0,
    occupied=0,
    stuck=0,
    backlog=0.0,
    horizon=5.0,
    within=5.0,
    ahead=1e9,
)


def erlang_c(slots: int, erlangs: float) -> float:
    """The formula as it is printed, with factorials."""
    top = erlangs**slots / math.factorial(slots) * slots / (slots - erlangs)
    below = sum(erlangs**k / math.factorial(k) for k in range(slots))
    return top / (below + top)


@pytest.mark.parametrize("erlangs", [0.1, 0.5, 1.0, 2.5, 7.0, 10.0, 20.0, 60.0])
@pytest.mark.parametrize("within", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("late", [0.01, 0.05, 0.2])
def test_a_stream_gets_the_fewest_slots_that_keep_erlang_s_promise(
    erlangs: float, within: float, late: float
) -> None:
    def are_late(slots: int) -> float:
        return erlang_c(slots, erlangs) * math.exp(-(slots - erlangs) * within)

    load = replace(STREAM, rate=erlangs, within=within)
    found = needs(load, late).stream
    expected = next(n for n in range(1, 200) if n > erlangs and are_late(n) <= late)
    assert found == pytest.approx(max(expected, erlangs / FULLEST))


@given(st.floats(EXACT, 5000), st.floats(0, 2), st.floats(0.001, 0.3))
def test_the_square_root_rule_agrees_with_the_formula(
    erlangs: float, within: float, late: float
) -> None:
    """Within 2 % of the slots."""
    load = replace(STREAM, rate=erlangs, within=within)
    found = needs(load, late).stream

    def waits(slots: int) -> float:
        blocked = 1.0
        for count in range(1, slots + 1):
            blocked = erlangs * blocked / (count + erlangs * blocked)
        return slots * blocked / (slots - erlangs * (1 - blocked))

    slots = math.ceil(found * 1.02)
    assert waits(slots) * math.exp(-(slots - erlangs) * within) <= late


def test_jobs_that_all_take_as_long_need_less_than_those_that_vary() -> None:
    steady, wild = (needs(replace(STREAM, variation=each), LATE).stream for each in (0.0, 9.0))
    assert steady < wild


def test_a_backlog_gets_what_starts_it_in_time() -> None:
    """Ten slots start ten jobs of a second at once, and as many each second."""
    load = replace(STREAM, rate=0.0, backlog=60, horizon=5.0)
    assert needs(load, LATE).slots == pytest.approx(10)


def test_what_comes_meanwhile_waits_behind_a_backlog_and_no_longer() -> None:
    """The stream keeps nine of ten slots busy; a second's worth of jobs wait, and are no reason."""
    load = replace(STREAM, rate=9.0, occupied=10, backlog=10)
    assert needs(load, LATE).slots == 10


def test_where_help_comes_late_those_count_too_that_come_until_a_backlog_is_gone() -> None:
    load = replace(STREAM, rate=10.0, occupied=10, backlog=90, horizon=50.0, within=5.0)
    assert needs(load, LATE).backlog == pytest.approx(600 / 56)


def test_long_jobs_need_a_slot_each() -> None:
    load = replace(STREAM, rate=0.0, service=3600.0, occupied=7, backlog=5)
    assert math.ceil(needs(load, LATE).slots) == 12


def test_stuck_jobs_keep_their_slots() -> None:
    assert needs(replace(STREAM, stuck=30), LATE).slots == needs(STREAM, LATE).slots + 30


def test_a_stream_of_long_jobs_is_planned_for_as_far_as_one_must_look_ahead() -> None:
    """What runs now is known; only what comes until the next look is left to chance."""
    long = replace(STREAM, rate=0.5, service=360.0, running=180, ahead=10.0)
    steady = needs(replace(long, ahead=1e9), LATE).stream
    assert 180 <= needs(long, LATE).stream <= 190 < steady


POSITIVE = st.floats(0.001, 1000)
LOADS = st.builds(
    Load,
    rate=POSITIVE,
    service=st.floats(0.001, 1e4),
    variation=st.floats(0, 50),
    running=st.integers(0, 5000),
    occupied=st.integers(0, 5000),
    stuck=st.integers(0, 100),
    backlog=st.floats(0, 1e5),
    horizon=st.floats(1, 100),
    within=st.floats(0.1, 1000),
    ahead=st.floats(1, 1000),
)


GROWTH = st.tuples(st.floats(0, 1e5), st.floats(0, 1000), st.integers(0, 50))


@given(LOADS, st.floats(0.001, 0.5), GROWTH)
def test_more_load_never_needs_less(
    load: Load, late: float, growth: tuple[float, float, int]
) -> None:
    backlog, rate, stuck = growth
    before = needs(load, late).slots
    assert math.isfinite(before)
    almost = before * (1 - 1e-5)
    assert needs(replace(load, backlog=load.backlog + backlog), late).slots >= almost
    assert needs(replace(load, stuck=load.stuck + stuck), late).slots >= almost
    assert needs(replace(load, rate=load.rate + rate), late).slots >= almost
