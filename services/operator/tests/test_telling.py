"""A change of a condition is told once, and no reason more than once a minute."""

from typing import Any

import pytest

from jangada_operator.workerpool.reasons import Happening, State, Trouble
from jangada_operator.workerpool.status import Condition
from jangada_operator.workerpool.telling import AGAIN, OVER, Voice, listed
from jangada_queue.policy.decide import Limit

READY = Condition("Ready", True, State.MANAGED, "")
NOT_READY = Condition("Ready", False, Trouble.TARGET_MISSING, "It is gone.")
FRESH = Condition("SignalsFresh", True, State.FRESH, "")
STALE = Condition("SignalsFresh", False, State.STALE, "They are old.")
NOT_READ = Condition("SignalsFresh", False, State.NOT_READ, "")
FREE = Condition("Limited", False, State.UNLIMITED, "")
FULL = Condition("Limited", True, Limit.MAXIMUM, "At most 3.")
BLOCKED = Condition("Limited", True, State.SCALE_DOWN_BLOCKED, "Not ready.")


def body(*said: Condition, generation: int = 1) -> dict[str, Any]:
    conditions = [
        {"type": each.type, "reason": str(each.reason), "observedGeneration": generation}
        for each in said
    ]
    metadata = {"namespace": "shop", "name": "mail", "uid": "u"}
    return {"metadata": metadata, "status": {"conditions": conditions}}


def told(voice: Voice, *found: Condition, at: float, generation: int = 1) -> list[str]:
    return [str(each.reason) for each in voice.due(found, generation, at)]


def test_a_new_pool_tells_what_is_wrong_and_not_that_all_is_well() -> None:
    assert told(Voice.of(body(), 0), READY, FRESH, FREE, at=0) == []
    assert told(Voice.of(body(), 0), READY, STALE, FULL, at=0) == ["Stale", "Maximum"]


def test_what_begins_and_ends_is_told_once_each() -> None:
    voice = Voice.of(body(), 0)
    assert told(voice, READY, FRESH, FREE, at=1) == []
    assert told(voice, READY, STALE, FULL, at=2) == ["Stale", "Maximum"]
    assert told(voice, READY, STALE, FULL, at=900) == []
    assert told(voice, READY, FRESH, BLOCKED, at=901) == ["Fresh", "ScaleDownBlocked"]
    assert told(voice, READY, FRESH, FREE, at=902) == ["Unlimited"]


def test_whoever_takes_over_repeats_nothing() -> None:
    voice = Voice.of(body(READY, STALE, FULL), 1000)
    assert told(voice, READY, STALE, FULL, at=1001) == []
    assert told(voice, READY, STALE, FREE, at=1002) == [], "it may not know as much yet"
    assert told(voice, READY, STALE, FULL, at=1003) == []
    assert told(voice, READY, FRESH, BLOCKED, at=1004) == ["ScaleDownBlocked"]
    assert told(voice, READY, FRESH, BLOCKED, at=1000 + AGAIN) == ["Fresh"]


def test_signals_that_were_not_read_were_not_stale() -> None:
    voice = Voice.of(body(NOT_READY, NOT_READ, FREE), 0)
    assert told(voice, READY, FRESH, FREE, at=900) == ["Managed"]
    assert OVER[State.MANAGED] == "The pool is looked after now.", "also at the very first time"


def test_a_limit_that_comes_and_goes_is_told_once_a_minute() -> None:
    voice = Voice.of(body(), 0)
    flaps = [told(voice, READY, FRESH, FULL if at % 2 else FREE, at=at) for at in range(1, 601)]
    assert 18 <= sum(map(len, flaps)) <= 22
    assert flaps[:4] == [["Maximum"], ["Unlimited"], [], []]


def test_what_came_too_soon_is_told_when_it_lasts() -> None:
    voice = Voice.of(body(), 0)
    for at, found in ((1, FULL), (2, FREE), (3, FULL), (60.5, FULL)):
        assert (told(voice, READY, FRESH, found, at=at) == []) is (at > 2)
    assert told(voice, READY, FRESH, FULL, at=1 + AGAIN) == ["Maximum"]


def test_other_conditions_say_nothing_while_a_pool_is_not_looked_after() -> None:
    voice = Voice.of(body(), 0)
    assert told(voice, READY, FRESH, FULL, at=1) == ["Maximum"]
    assert told(voice, NOT_READY, NOT_READ, FREE, at=2) == ["TargetMissing"]
    assert told(voice, READY, FRESH, FULL, at=3) == ["Managed"]


def test_an_invalid_spec_is_told_once_for_each_of_its_generations() -> None:
    invalid = Condition("Ready", False, Trouble.INVALID_SPEC, ".spec.floors[0]: …")
    voice = Voice.of(body(invalid, generation=4), 0)
    assert told(voice, invalid, at=1, generation=4) == []
    assert told(voice, invalid, at=1 + AGAIN, generation=5) == ["InvalidSpec"]
    assert told(voice, invalid, at=900, generation=5) == []


def test_pods_that_drain_within_a_minute_are_told_together() -> None:
    voice, what, all_of_them = Voice.of(body(), 0), Happening.DRAIN_STARTED, "abc"
    assert voice.collect(what, [], all_of_them, 0) == []
    assert voice.collect(what, ["a"], all_of_them, 1) == ["a"]
    assert voice.collect(what, ["b"], all_of_them, 2) == ()
    assert voice.collect(what, ["c"], all_of_them, 3) == ()
    assert voice.collect(what, [], all_of_them, 1 + AGAIN) == ["b", "c"]
    assert voice.collect(what, [], all_of_them, 900) == []


def test_of_pods_that_are_gone_nothing_is_told_any_more() -> None:
    voice, what = Voice.of(body(), 0), Happening.DRAIN_STARTED
    assert voice.collect(what, ["a"], "a", 1) == ["a"]
    assert voice.collect(what, ["b", "c"], "bc", 2) == ()
    assert voice.collect(what, [], "c", 3) == ()
    assert voice.collect(what, ["d"], "cd", 1 + AGAIN) == ["c", "d"]
    assert voice.collect(what, ["e"], "e", 2 + AGAIN) == ()
    assert voice.collect(what, [], "", 900) == []


def test_who_writes_the_size_all_the_time_is_told_of_once_a_minute() -> None:
    voice = Voice.of(body(), 0)
    often = [voice.may_tell(Happening.CONFLICT, at) for at in range(120)]
    assert [at for at, is_told in enumerate(often) if is_told] == [0, 60]


@pytest.mark.parametrize(
    ("count", "text"), [(1, "w-0"), (5, "w-0, w-1, w-2, w-3, w-4"), (9, "w-4 and 4 others")]
)
def test_a_few_pods_are_named_and_others_counted(count: int, text: str) -> None:
    assert listed([f"w-{number}" for number in range(count)]).endswith(text)
