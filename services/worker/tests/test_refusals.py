"""Queues that Valkey refuses something of wait by themselves."""

import math
import time

from jangada_worker.refusals import Refusals


def test_a_refused_queue_waits_and_its_neighbours_do_not() -> None:
    refusals = Refusals()
    before = time.monotonic()
    refusals.add("a")
    assert refusals.queues == ["a"]
    assert refusals.until > before
    assert "b" in refusals.without({"a", "b"})
    refusals.discard("a")
    assert refusals.without({"b", "a"}) == ["a", "b"]
    assert refusals.until == math.inf


def test_it_is_told_once_until_it_is_of_use_again() -> None:
    refusals = Refusals()
    assert refusals.add("a")
    assert not refusals.add("a")
    refusals.discard("a")
    assert refusals.add("a")


def test_a_queue_in_which_nothing_waits_any_more_is_forgotten() -> None:
    """It would be looked at again and again, and be said to wait."""
    refusals = Refusals()
    for queue in ("a", "b"):
        refusals.add(queue)
    refusals.keep({"b", "c"})
    assert refusals.queues == ["b"]
