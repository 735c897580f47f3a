"""What a status says replaces what it said before, and a list of pools shows why in any case."""

from jangada_operator.workerpool.reasons import State, Trouble
from jangada_operator.workerpool.status import Condition, Problem, patch_of, refused_of, told_of
from jangada_queue.policy.decide import Decision, Reason
from jangada_queue.policy.history import History


def test_nothing_of_before_outlives_a_patch() -> None:
    before = {
        "backlog": 3,
        "lastDecision": {"to": 5, "limitedBy": "Maximum", "inputs": {"backlog": 3.0}},
    }
    after = {"lastDecision": {"to": 5, "inputs": {}}}
    assert patch_of(before, after) == {
        "backlog": None,
        "lastDecision": {"to": 5, "limitedBy": None, "inputs": {"backlog": None}},
    }


def test_what_is_new_is_written_whole() -> None:
    after = {"lastDecision": {"to": 5, "inputs": {"backlog": 3.0}}, "decisions": [{"to": 5}]}
    assert patch_of({}, after) == after


def decision(reason: Reason, message: str) -> Decision:
    return Decision(
        size=1,
        replicas=1,
        reason=reason,
        message=message,
        inputs={},
        next_check=0.0,
        history=History(),
    )


def test_why_is_said_whether_or_not_a_pool_is_looked_after() -> None:
    missing = refused_of(Problem(Trouble.TARGET_MISSING, "There is none."))
    assert missing == {"reason": "TargetMissing", "message": "There is none."}
    grown = told_of(decision(Reason.BACKLOG, "Jobs wait."), is_dry_run=True)
    assert grown == {"reason": "Backlog", "message": "Dry run, nothing is done: Jobs wait."}


def test_of_stale_signals_the_server_is_named() -> None:
    text = "Signals are 42 s old. valkey:6379 doesn't answer."
    stale = Condition("SignalsFresh", False, State.STALE, text)
    told = told_of(decision(Reason.STALE, "Signals are 42 s old."), [stale], is_dry_run=False)
    assert told == {"reason": "SignalsStale", "message": text}
