"""What a status says replaces what it said before, and a list of pools shows why in any case."""

from jangada_operator.workerpool.reasons import Trouble
from jangada_operator.workerpool.status import patch_of, told_of
from jangada_queue.policy.decide import Reason


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


def test_why_is_said_whether_or_not_a_pool_is_looked_after() -> None:
    missing = told_of(Trouble.TARGET_MISSING, "There is none.", is_dry_run=False)
    assert missing == {"reason": "TargetMissing", "message": "There is none."}
    grown = told_of(Reason.BACKLOG, "Jobs wait.", is_dry_run=True)
    assert grown == {"reason": "Backlog", "message": "Dry run, nothing is done: Jobs wait."}
