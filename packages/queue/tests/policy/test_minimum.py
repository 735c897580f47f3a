"""At its minimum a pool says so, and doesn't seem to shrink."""

from dataclasses import replace

import pytest

from jangada_queue.policy.decide import Limit, Reason, decide
from jangada_queue.policy.history import History
from jangada_queue.policy.observation import Observation, Seen, Signals, Stage
from jangada_queue.policy.wanted import Wanted

WANTED = Wanted(least=2, most=50)
QUIET = Signals(backlog=0, in_flight=0, arrived=0, arrival_rate=0.0)
POOL = [Seen(id=each, stage=Stage.READY, age=1000.0, slots=10, held=0, running=[]) for each in "ab"]
IDLE = Observation(replicas=2, pool=POOL, signals=QUIET)
NOW = 1_800_000_000.0


@pytest.mark.parametrize("seconds", [1, 60, 900])
def test_a_pool_at_its_minimum_says_so_however_long_it_lasts(seconds: int) -> None:
    history = History()
    for second in range(seconds):
        history = decide(WANTED, IDLE, history, NOW + second).history
    found = decide(WANTED, IDLE, history, NOW + seconds)
    assert (found.size, found.reason, found.drain) == (2, Reason.MINIMUM, ())
    assert found.limited_by is Limit.MINIMUM
    assert found.message == "0 would be enough; at least 2 are wanted at this time."


def test_a_pool_above_its_minimum_shrinks_to_it() -> None:
    history = History()
    wanted = replace(WANTED, least=1)
    for second in range(60):
        history = decide(wanted, IDLE, history, NOW + second).history
    found = decide(wanted, IDLE, history, NOW + 60)
    assert (found.size, found.reason, found.limited_by) == (1, Reason.SURPLUS, Limit.MINIMUM)
