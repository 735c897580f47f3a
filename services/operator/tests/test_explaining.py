"""What `explain` prints is true of now, or says of when it is."""

from typing import Any

import pytest

from jangada_operator.explaining import FIGURES, changed_by, lines, summary
from jangada_operator.workerpool.spec import InvalidSpec, read_pool
from jangada_operator.workerpool.status import _camel

INPUTS = {_camel(name): 1.0 for name in FIGURES} | {"backlog": 40.0, "backlogExpected": 37.5}
GROWN: dict[str, Any] = {
    "time": "2026-11-29T12:00:00Z",
    "from": 1,
    "to": 4,
    "reason": "Backlog",
    "message": "Jobs wait.",
    "inputs": INPUTS,
}
STALE: dict[str, Any] = {
    "time": "2026-11-29T12:05:00Z",
    "from": 4,
    "to": 4,
    "reason": "SignalsStale",
    "message": "Signals are 42 s old: the pool stays at 4.",
    "inputs": {},
}


def body(**spec: Any) -> dict[str, Any]:  # noqa: ANN401 - as it is written
    return {
        "metadata": {"namespace": "shop", "name": "adding", "uid": "u"},
        "spec": {
            "scaleTargetRef": {"name": "worker"},
            "queues": ["taskiq"],
            "broker": {"secretKeyRef": {"name": "valkey", "key": "url"}},
            "replicas": {"min": 0, "max": 20},
            **spec,
        },
    }


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    since = "2026-11-29T12:04:30Z"
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    }


def printed(status: dict[str, Any], *changes: str, **spec: Any) -> str:  # noqa: ANN401 - as above
    found = body(**spec)
    what_if = read_pool(changed_by(found, changes)) if changes else None
    return "\n".join(lines(read_pool(found), status, what_if))


def test_a_decision_is_told_with_its_figures() -> None:
    told = printed({"lastDecision": GROWN, "decisions": [GROWN]})
    assert "12:00:00Z: 1 → 4 (Backlog)" in told
    assert "40 wait" in told
    assert "an estimated 37.5 still wait when others could be there" in told
    assert "Old figures" not in told


def test_figures_of_before_stale_signals_are_said_to_be_old() -> None:
    stale = condition("SignalsFresh", "False", "Stale", STALE["message"])
    told = printed(
        {"lastDecision": STALE, "decisions": [GROWN, STALE], "conditions": [stale]},
        "replicas.max=50",
    )
    assert "SignalsFresh is False since 2026-11-29T12:04:30Z: Signals are 42 s old" in told
    assert "Old figures, of 2026-11-29T12:00:00Z: no later decision has any." in told
    assert "With the changed spec, by the figures of 2026-11-29T12:00:00Z: " in told


def test_a_dry_run_and_a_paused_pool_are_said_to_be_so() -> None:
    status = {"lastDecision": GROWN}
    assert "is a dry run (spec.dryRun): " in printed(status, dryRun=True)
    assert "is paused (spec.paused): the size stays" in printed(status, paused=True)
    assert "dry run" not in printed(status)
    assert summary(body(dryRun=True), None)["dryRun"] is True


def test_a_pool_that_is_not_looked_after_says_why_and_decides_nothing() -> None:
    conditions = [
        condition("Ready", "False", "TargetMissing", "There is no Deployment worker."),
        condition("SignalsFresh", "False", "NotRead", "There is no Deployment worker."),
    ]
    told = printed({"conditions": conditions, "decisions": [GROWN]})
    assert told.count("There is no Deployment worker.") == 1
    assert "Nothing is decided while it isn't Ready." in told
    assert "Before:" in told


def test_a_pool_that_nobody_has_looked_at_says_so() -> None:
    assert "Nothing was decided yet." in printed({})


def test_figures_of_another_release_are_passed_over() -> None:
    other = {**GROWN, "inputs": {"somethingElse": 1.0}}
    told = printed({"lastDecision": other}, "replicas.max=50")
    assert "No decision has figures to ask about yet." in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("replicas.max", "is no change: write FIELD=VALUE, replicas.max=20"),
        ("replicas.max=many", "replicas.max must be a whole number, and is 'many'"),
        ("replicas.maximum=3", "replicas.maximum is no field: did you mean max?"),
        ("queues=mail", "queues must be a list, in JSON, and is 'mail'"),
        ("floors.0.min=2", "floors is a list, which is given as a whole, in JSON"),
        ("replicas.min=21", "replicas: min must not be above max"),
        ("scaleTargetRef.name=other", "the target can't be changed"),
    ],
)
def test_a_change_that_an_api_server_would_refuse_is_refused(change: str, told: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        changed_by(body(), [change])
    assert told in str(refused.value)


def test_what_holds_text_takes_it_as_it_is_written() -> None:
    changed = changed_by(body(), ["broker.prefix=123", "spec.replicas.max=50", "paused=true"])
    spec = changed["spec"]
    assert (spec["broker"]["prefix"], spec["replicas"]["max"], spec["paused"]) == ("123", 50, True)
