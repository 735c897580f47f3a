"""What is decided, and what never is."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jangada_queue.cron import Cron
from jangada_queue.policy.decide import Decision, Limit, Reason, decide
from jangada_queue.policy.history import History
from jangada_queue.policy.observation import Observation, Running, Seen, Signals, Stage
from jangada_queue.policy.wanted import Floor, OnDeadline, ScaleDown, Wanted
from jangada_queue.policy.what_if import size_for
from jangada_queue.service_times import ServiceTimes

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
WANTED = Wanted(most=50)
QUIET = Signals(backlog=0, in_flight=0, arrived=0, arrival_rate=0.0)


def taking(*seconds: float) -> ServiceTimes:
    times = ServiceTimes()
    for each in seconds:
        times.add(each, "job")
    return times


def ready(number: int, *running: float, **more: Any) -> Seen:  # noqa: ANN401 - Seen's own
    given = {"stage": Stage.READY, "age": 1000.0, "slots": 10, "held": len(running), **more}
    return Seen(id=f"r{number}", running=[Running("job", each) for each in running], **given)


def seen(*pool: Seen, signals: Signals | None = QUIET, **more: Any) -> Observation:  # noqa: ANN401 - Observation's own
    return Observation(**{"replicas": len(pool), "pool": pool, "signals": signals, **more})


def settled(wanted: Wanted, observation: Observation, seconds: int = 200) -> Decision:
    """The decision after so many seconds in which nothing changes."""
    history = History()
    for second in range(seconds):
        history = decide(wanted, observation, history, NOW + second).history
    return decide(wanted, observation, history, NOW + seconds)


def test_nothing_to_do_needs_nobody() -> None:
    found = settled(WANTED, seen())
    assert (found.size, found.replicas, found.reason) == (0, 0, Reason.IDLE)


def test_the_first_job_starts_a_replica_at_once() -> None:
    found = decide(WANTED, seen(signals=replace(QUIET, backlog=1, arrived=1)), History(), NOW)
    assert (found.size, found.replicas, found.reason) == (1, 1, Reason.BACKLOG)


def test_a_backlog_is_started_in_time() -> None:
    """600 jobs of 0.5 s in ten seconds, on ten slots each."""
    waits = replace(QUIET, backlog=600, arrived=600, service=taking(0.5))
    found = decide(WANTED, seen(signals=waits), History(), NOW)
    assert found.size == 4
    assert "600 jobs" in found.message


def test_short_jobs_that_wait_too_long_behind_a_longer_one_get_help() -> None:
    """It may end any moment, until somebody has waited longer than they may: then it doesn't."""
    history = History(starts=(5.0,))
    waits = replace(QUIET, in_flight=1, backlog=3, arrived=9, service=taking(*[2.0] * 20))
    behind = ready(1, 6.0, slots=1)
    told = [seen(behind, signals=replace(waits, oldest_wait=each)) for each in (4.0, 5.1)]
    assert [decide(WANTED, each, history, NOW).size for each in told] == [1, 2]


def test_a_replica_that_runs_something_keeps_the_pool_from_zero() -> None:
    runs = replace(QUIET, in_flight=1, service=taking(1.0))
    found = settled(WANTED, seen(ready(1, 40_000.0), signals=runs))
    assert (found.size, found.drain) == (1, ())


def test_a_lease_that_nobody_here_holds_is_demand() -> None:
    found = decide(WANTED, seen(signals=replace(QUIET, in_flight=1)), History(), NOW)
    assert found.replicas == 1


def test_a_size_is_given_up_once_it_was_unneeded_for_long_enough() -> None:
    pool = seen(ready(1), ready(2), ready(3))
    held = settled(WANTED, pool, seconds=59)
    assert (held.size, held.reason, held.drain) == (3, Reason.COOLING, ())
    assert held.next_check <= NOW + 120
    gone = settled(WANTED, pool, seconds=60)
    assert (gone.size, gone.reason, len(gone.drain)) == (0, Reason.SURPLUS, 3)
    assert gone.replicas == 3, "nobody is deleted by lowering the size: they drain first"


def after_a_backlog(seconds: int, *, rate: int = 0) -> Decision:
    """Three replicas, so many seconds after the last of 600 jobs has begun."""
    history = History(starts=(5.0,))
    found = decide(WANTED, seen(), history, NOW)
    for second in range(70 + seconds):
        is_full = 60 <= second < 70
        told = replace(QUIET, backlog=600 * is_full, in_flight=30 * is_full, service=taking(0.5))
        told = replace(told, arrived=600 * (second >= 60) + rate * second, arrival_rate=rate)
        pool = [ready(number, *[0.2] * (10 * is_full)) for number in range(3)]
        found = decide(WANTED, seen(*pool, signals=told), history, NOW + second)
        history = found.history
    return found


def test_what_only_a_backlog_needed_is_given_back_within_a_start() -> None:
    """Starting them again would take no longer; what arrivals need stays."""
    assert after_a_backlog(0).size >= 3, "while it waits"
    assert after_a_backlog(4).size == 3
    assert after_a_backlog(8).size == 1, "of a batch a trickle is left that still may come"
    assert after_a_backlog(8, rate=10).size == 1


def test_who_has_become_idle_goes_instead_of_who_drains_and_is_still_busy() -> None:
    busy = ready(1, 30.0, stage=Stage.DRAINING, drained_for=20.0)
    runs = replace(QUIET, in_flight=1, service=taking(1.0))
    found = decide(WANTED, seen(busy, ready(2), signals=runs), History(), NOW)
    assert (found.undrain, found.drain) == (("r1",), ("r2",))
    going = [replace(busy, id=f"d{number}") for number in range(9)]
    less = settled(WANTED, seen(ready(2, 1.0), ready(3, 1.0), *going, signals=runs))
    assert (less.size, less.undrain) == (1, ()), "a pool that shrinks takes nobody back"
    assert decide(WANTED, seen(busy, ready(2), signals=None), History(), NOW).drain == ("r1",)


def test_those_that_drain_come_back_before_replicas_that_never_came_are_counted() -> None:
    """Seventeen of twenty can't be created; the three that are there were asked to drain."""
    waits = replace(QUIET, backlog=21, arrived=21, service=taking(1.0))
    pool = [ready(number, stage=Stage.DRAINING, drained_for=9.0) for number in range(3)]
    asked = seen(*pool, signals=waits, replicas=20)
    found, lower = (decide(replace(WANTED, most=n), asked, History(), NOW) for n in (50, 3))
    assert (len(found.undrain), found.drain) == (3, ())
    assert (lower.replicas, len(lower.undrain)) == (3, 3)


def test_a_stream_that_falls_silent_needs_nobody_from_then_on() -> None:
    """So the last replica goes `scaleDown.after` later, and not twice as late."""
    history, pool = History(starts=(5.0,)), [ready(1), ready(2)]
    for second in range(300):
        told = replace(QUIET, arrived=20 * min(second, 200), service=taking(0.5))
        found = decide(WANTED, seen(*pool, signals=told), history, NOW + second)
        history, pool = found.history, pool[: found.size]
        if not found.size:
            break
    assert 260 <= second <= 262


def test_a_stream_s_replica_that_was_given_up_too_soon_stays_longer_the_next_time() -> None:
    """A rate at the edge of a replica: what comes back by chance is kept for five minutes."""
    history, size, sizes = History(starts=(5.0,)), 2, []
    for second in range(450):
        told = replace(QUIET, arrived=9 * second, arrival_rate=9.0, service=taking(0.98))
        told = replace(told, in_flight=9, backlog=90 if second % 150 == 0 and second else 0)
        pool = [ready(number, *[0.5] * (9 // size)) for number in range(size)]
        found = decide(WANTED, seen(*pool, signals=told), history, NOW + second)
        history, size = found.history, found.size
        sizes.append(size)
    assert set(sizes[140:150]) == {1}
    assert set(sizes[150:450]) == {2}, "the second time, and so from then on"


def test_jobs_that_fall_due_soon_find_their_replicas() -> None:
    due = replace(QUIET, due_soon=[(10.0, 0), (60.0, 1000)], service=taking(1.0))
    assert decide(WANTED, seen(signals=due), History(), NOW).size == 0
    sooner = replace(due, due_soon=[(10.0, 1000), (60.0, 1000)])
    found = decide(WANTED, seen(signals=sooner), History(), NOW)
    assert found.reason is Reason.DUE_SOON
    assert found.size == 9


def test_nobody_is_started_twice_for_what_is_starting() -> None:
    waits = replace(QUIET, backlog=600, arrived=600, service=taking(0.5))
    first = decide(WANTED, seen(signals=waits), History(), NOW)
    starting = [
        Seen(id=f"s{number}", stage=Stage.STARTING, age=1.0) for number in range(first.size)
    ]
    found = decide(WANTED, seen(*starting, signals=waits), first.history, NOW + 1)
    assert found.replicas == first.replicas
    ordered = decide(WANTED, seen(signals=waits, replicas=first.size), first.history, NOW + 1)
    assert ordered.replicas == first.replicas


def test_an_unknown_service_time_is_learned_before_more_are_started() -> None:
    pool = [Seen(id="s1", stage=Stage.STARTING, age=3.0)]
    waits = replace(QUIET, backlog=5000, arrived=5000)
    assert decide(WANTED, seen(*pool, signals=waits), History(), NOW).size == 1
    slow = seen(ready(1, *[20.0] * 10), signals=replace(waits, in_flight=10))
    assert decide(WANTED, slow, History(), NOW).size == WANTED.most


@pytest.mark.parametrize("age", [None, 30.0])
def test_without_signals_the_size_stays(age: float | None) -> None:
    pool = seen(ready(1), ready(2), signals=None, signals_age=age)
    found = settled(WANTED, pool, seconds=600)
    assert (found.size, found.replicas, found.drain) == (2, 2, ())
    assert found.reason is Reason.STALE
    assert found.limited_by is None


def test_a_size_must_be_unneeded_anew_after_signals_were_absent() -> None:
    pool = seen(ready(1), ready(2))
    history = settled(WANTED, pool, seconds=50).history
    history = decide(WANTED, replace(pool, signals=None), history, NOW + 51).history
    for second in range(52, 112):
        found = decide(WANTED, pool, history, NOW + second)
        assert found.size == 2, second
        history = found.history
    assert decide(WANTED, pool, history, NOW + 112).size == 0


def test_a_paused_pool_stays_and_nobody_drains() -> None:
    pool = seen(ready(1), ready(2, stage=Stage.DRAINING), signals=replace(QUIET, backlog=999))
    found = settled(replace(WANTED, is_paused=True), pool)
    assert (found.size, found.replicas, found.undrain) == (1, 2, ("r2",))


def test_jobs_that_wait_beside_idle_slots_start_nobody() -> None:
    """A limit on their kind holds them back, for example."""
    pool = [ready(1, 1.0), ready(2)]
    waits = replace(QUIET, backlog=5000, in_flight=1, arrived=5000, service=taking(1.0))
    at_first = decide(WANTED, seen(*pool, signals=waits), History(), NOW)
    assert at_first.size > 2
    later = settled(WANTED, seen(*pool, signals=waits), seconds=11)
    assert later.size == 2
    assert "5000 wait beside idle slots" in later.message
    busy = seen(ready(1, *[1.0] * 9), ready(2, *[1.0] * 9), signals=replace(waits, in_flight=18))
    assert settled(WANTED, busy, seconds=11).size > 2


def test_those_that_drain_come_back_before_others_start() -> None:
    pool = [ready(1, 1.0), ready(2, stage=Stage.DRAINING), ready(3, 1.0, stage=Stage.DRAINING)]
    busy = replace(QUIET, in_flight=2, backlog=35, service=taking(30.0), arrived=35)
    found = decide(WANTED, seen(*pool, signals=busy), History(), NOW)
    assert found.undrain == ("r3", "r2")
    assert found.drain == ()
    assert found.replicas == 3
    more = decide(WANTED, seen(*pool, signals=replace(busy, backlog=99)), History(), NOW)
    assert set(more.undrain) == {"r2", "r3"}
    assert more.replicas == more.size > 3


def test_starting_replicas_go_first_then_the_idlest_then_the_soonest() -> None:
    pool = [
        ready(1, 1.0),
        ready(2),
        ready(3, 8.0),
        Seen(id="s1", stage=Stage.STARTING, age=9.0),
        Seen(id="s2", stage=Stage.STARTING, age=2.0),
        ready(4, 1.0, 1.0),
    ]
    kinds = {"job": 10.0}
    for least, gone in enumerate(["r4", "r1", "r3", "r2", "s1", "s2"]):
        wanted = replace(WANTED, least=least, scale_down=ScaleDown(most_draining=9))
        told = replace(QUIET, kinds=kinds, service=taking(10.0))
        drained = settled(wanted, seen(*pool, signals=told)).drain
        assert drained[-1] == gone
        assert len(drained) == len(pool) - least


def test_a_reduction_is_gone_on_with_once_it_was_begun() -> None:
    """Four of eight are enough, and may drain one after the other; meanwhile chance isn't asked."""
    wanted = replace(WANTED, scale_down=ScaleDown(most_draining=1), slots=1)
    load = replace(QUIET, in_flight=3, arrival_rate=1.5, service=taking(2.0))
    history, sizes = History(), []
    pool = [ready(number, 1.0, slots=1) for number in range(8)]
    for second in range(700):
        told = replace(load, arrived=int(1.5 * second))
        found = decide(wanted, seen(*pool, signals=told), history, NOW + second)
        history = found.history
        drained = set(found.drain)
        pool = [
            replace(each, stage=Stage.DRAINING) if each.id in drained else each for each in pool
        ]
        sizes.append(found.size)
        if second % 5 == 0:  # those that drain have ended what they ran
            pool = [each for each in pool if each.stage is Stage.READY]
    begun = sizes.index(min(sizes))
    assert set(sizes[begun:]) == {min(sizes)}


def test_a_stream_that_has_ended_keeps_nobody() -> None:
    """The decayed rate would be there for minutes."""
    history = History()
    found = decide(WANTED, seen(), history, NOW)
    for second in range(120):
        arrived = min(60, second) * 20
        rate = 20.0 if second < 60 else 5.0
        told = replace(QUIET, arrived=arrived, arrival_rate=rate, service=taking(0.5))
        found = decide(WANTED, seen(ready(1), ready(2), signals=told), history, NOW + second)
        history = found.history
    assert found.size == 2
    for second in range(120, 182):
        told = replace(QUIET, arrived=1200, arrival_rate=5.0, service=taking(0.5))
        found = decide(WANTED, seen(ready(1), ready(2), signals=told), history, NOW + second)
        history = found.history
    assert found.size == 0


def test_few_busy_ones_drain_at_once_and_any_number_of_idle_ones() -> None:
    pool = [ready(number, 1.0) for number in range(8)] + [ready(number) for number in (8, 9)]
    found = settled(WANTED, seen(*pool, signals=replace(QUIET, service=taking(0.01))))
    assert found.drain == ("r8", "r9", "r0", "r1")
    assert found.limited_by is Limit.DRAINING


def test_a_bound_on_what_starts_at_once_is_kept() -> None:
    waits = replace(QUIET, backlog=5000, service=taking(1.0))
    wanted = replace(WANTED, most_starting=5)
    found = decide(wanted, seen(signals=waits), History(), NOW)
    assert (found.replicas, found.limited_by) == (5, Limit.STARTING)
    starting = [Seen(id=f"s{number}", stage=Stage.STARTING, age=1.0) for number in range(5)]
    assert decide(wanted, seen(*starting, signals=waits), History(), NOW).replicas == 5


def test_the_most_is_never_exceeded_and_said_to_be_in_the_way() -> None:
    waits = replace(QUIET, backlog=10**6, service=taking(1.0))
    found = decide(WANTED, seen(signals=waits), History(), NOW)
    assert (found.replicas, found.limited_by) == (50, Limit.MAXIMUM)
    assert "At most 50" in found.message


def test_who_outlasts_the_deadline_is_interrupted_only_where_that_is_wanted() -> None:
    late = ready(1, 9000.0, stage=Stage.DRAINING, drained_for=3600.0)
    idle = ready(2, stage=Stage.DRAINING, drained_for=9999.0)
    pool = seen(late, idle, ready(3, 1.0), signals=replace(QUIET, in_flight=2))
    assert settled(WANTED, pool).interrupt == ()
    ends = replace(WANTED, scale_down=ScaleDown(on_deadline=OnDeadline.INTERRUPT))
    assert settled(ends, pool).interrupt == ("r1",)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("now", "least"),
    [
        ("2026-11-27T07:59:59-03:00", 0),
        ("2026-11-27T08:00:00-03:00", 2),
        ("2026-11-27T17:59:59-03:00", 2),
        ("2026-11-27T18:00:00-03:00", 0),
        ("2026-11-28T12:00:00-03:00", 0),  # a Saturday
    ],
)
def test_a_floor_holds_in_its_hours_and_its_zone(now: str, least: int) -> None:
    cron = Cron.parse("0 8 * * 1-5", "America/Sao_Paulo")
    wanted = replace(WANTED, floors=(Floor(cron, timedelta(hours=10), 2),))
    found = decide(wanted, seen(), History(), at(now))
    assert found.replicas == least
    assert (found.reason is Reason.FLOOR) == bool(least)
    blind = decide(wanted, seen(signals=None), History(), at(now))
    assert blind.replicas == least


def test_the_next_check_is_when_a_floor_begins() -> None:
    floor = Floor(Cron.parse("0 8 * * *", "UTC"), timedelta(hours=1), 1)
    now = at("2026-11-27T07:59:30+00:00")
    found = decide(replace(WANTED, floors=(floor,)), seen(), History(), now)
    assert found.next_check == now + 30


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Wanted(most=1, least=2),
        lambda: Wanted(most=1, least=-1),
        lambda: Wanted(most=1, start_within=timedelta(0)),
        lambda: Wanted(most=1, slots=0),
        lambda: Floor(Cron.parse("@daily", "UTC"), timedelta(days=8), 1),
        lambda: Floor(Cron.parse("@daily", "UTC"), timedelta(hours=1), 0),
    ],
)
def test_what_cannot_be_wanted_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        wrong()


STAGES = st.sampled_from(Stage)
POOLS = st.lists(
    st.builds(
        lambda stage, running, slots: ready(0, *running, stage=stage, slots=slots),
        STAGES,
        st.lists(st.floats(0, 1e5), max_size=10),
        st.sampled_from([0, 10, 10, 10]),
    ),
    max_size=20,
).map(lambda pool: [replace(each, id=f"r{number}") for number, each in enumerate(pool)])
SIGNALS = st.builds(
    Signals,
    backlog=st.integers(0, 10**6),
    in_flight=st.integers(0, 10**4),
    arrived=st.integers(0, 10**9),
    arrival_rate=st.floats(0, 1e5),
    due_soon=st.sampled_from([(), [(10.0, 5), (60.0, 500)]]),
    service=st.lists(st.floats(0.001, 1e4), max_size=5).map(lambda each: taking(*each)),
)
WISHES = st.builds(
    lambda least, more, within, down: Wanted(
        least=least, most=least + more, start_within=timedelta(seconds=within), scale_down=down
    ),
    st.integers(0, 10),
    st.integers(0, 60),
    st.floats(0.5, 600),
    st.builds(
        ScaleDown,
        after=st.sampled_from([timedelta(0), timedelta(seconds=60)]),
        most_draining=st.sampled_from([None, 1, 100]),
    ),
)


@given(WISHES, POOLS, st.none() | SIGNALS, st.integers(0, 40))
def test_what_is_decided_can_always_be_done(
    wanted: Wanted, pool: list[Seen], signals: Signals | None, asked: int
) -> None:
    observation = seen(*pool, signals=signals, replicas=asked)
    found = settled(wanted, observation, seconds=3)
    stages = {each.id: each.stage for each in pool}
    crew = sum(each.stage in {Stage.STARTING, Stage.READY} for each in pool)
    there = sum(each.stage is not Stage.TERMINATING for each in pool)
    assert min(asked, there) <= found.replicas <= max(asked, wanted.most)
    if signals is not None:
        there = max(asked, crew)
        assert wanted.least <= found.size <= max(wanted.most, there)
    assert {stages[each] for each in found.undrain} <= {Stage.DRAINING}
    assert {stages[each] for each in found.drain} <= {Stage.STARTING, Stage.READY, Stage.DRAINING}
    assert not set(found.drain) & set(found.undrain)
    held = {each.id: each.held for each in pool}
    if any(stages[each] is not Stage.DRAINING for each in found.drain):
        assert all(held[each] for each in found.undrain), "idle ones instead of busy ones"
    assert found.next_check > NOW + 3
    assert found == settled(wanted, observation, seconds=3)


@settings(deadline=None)
@given(WISHES, POOLS, SIGNALS)
def test_no_busy_replica_goes_while_an_idle_one_stays(
    wanted: Wanted, pool: list[Seen], signals: Signals
) -> None:
    found = settled(wanted, seen(*pool, signals=signals), seconds=61)
    serving = [each for each in pool if each.stage is Stage.READY and each.slots]
    gone = [each for each in serving if each.id in found.drain]
    kept = [each for each in serving if each.id not in found.drain]
    assert max((each.held for each in gone), default=0) <= min(
        (each.held for each in kept), default=10**9
    )
    drained = [each for each in pool if each.stage is Stage.DRAINING and each.id in found.drain]
    if not wanted.is_paused and any(each.held for each in drained):
        assert all(each.held for each in kept)


@given(WISHES, POOLS, SIGNALS, st.integers(0, 10**6))
def test_a_longer_backlog_never_makes_a_smaller_pool(
    wanted: Wanted, pool: list[Seen], signals: Signals, more: int
) -> None:
    longer = replace(signals, backlog=signals.backlog + more)
    sizes = [settled(wanted, seen(*pool, signals=each), 3).size for each in (signals, longer)]
    assert sizes[0] <= sizes[1]


@settings(deadline=None, max_examples=12)
@given(st.floats(0.05, 30), st.floats(0.01, 20), st.integers(1, 100))
@example(rate=18.181023439994153, service=19.5625, slots=1)
def test_a_constant_load_is_served_by_a_constant_pool(
    rate: float, service: float, slots: int
) -> None:
    """But for one more, where all but exactly so many are needed: arrivals are whole jobs."""
    wanted, history, size, sizes = Wanted(most=10_000, slots=slots), History(), 0, list[int]()
    for second in range(300):
        running = round(min(rate * service, size * slots))
        signals = Signals(
            backlog=0 if size else 1,
            in_flight=running,
            arrived=int(rate * second),
            arrival_rate=rate,
            service=taking(service),
        )
        pool = [ready(number, slots=slots, held=running // max(1, size)) for number in range(size)]
        found = decide(wanted, seen(*pool, signals=signals), history, NOW + second)
        history, size = found.history, found.size
        sizes.append(size)
    assert [b - a for a, b in pairwise(sizes[150:]) if a != b] in ([], [1])


@given(WISHES, POOLS, SIGNALS)
def test_a_decision_s_inputs_say_how_its_size_came_about(
    wanted: Wanted, pool: list[Seen], signals: Signals
) -> None:
    """So that people can ask what another spec would have made of it."""
    found = decide(wanted, seen(*pool, signals=signals), History(), NOW)
    size, need = size_for(wanted, found.inputs, NOW)
    assert need.stream == found.inputs["slots_for_arrivals"]
    assert need.backlog == found.inputs["slots_for_backlog"]
    if found.reason in {Reason.ARRIVALS, Reason.BACKLOG, Reason.DUE_SOON}:
        assert size == found.size
