"""A WorkerPool is read, or refused with the field that is wrong."""

from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest

from jangada_operator.workerpool.spec import InvalidSpec, read_pool
from jangada_queue.policy.wanted import OnDeadline

BODY: dict[str, Any] = {
    "metadata": {"namespace": "shop", "name": "imports", "uid": "u", "generation": 3},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"},
        "queues": ["imports", "imports", "mail"],
        "broker": {"secretKeyRef": {"name": "valkey", "key": "url"}},
        "replicas": {"min": 1, "max": 50},
        "objective": {"startWithin": "2s"},
        "scaleUp": {"maxStarting": 5},
        "scaleDown": {
            "after": "1m30s",
            "drainDeadline": "2h",
            "onDeadline": "Interrupt",
            "maxDraining": 3,
        },
        "floors": [
            {"cron": "0 8 * * 1-5", "timeZone": "America/Sao_Paulo", "duration": "10h", "min": 2}
        ],
        "slotsPerReplica": 4,
        "paused": True,
        "dryRun": True,
    },
}
SMALLEST: dict[str, Any] = {
    "metadata": {"namespace": "shop", "name": "imports", "uid": "u"},
    "spec": {
        "scaleTargetRef": {"name": "worker"},
        "queues": ["imports"],
        "broker": {"secretKeyRef": {"name": "valkey", "key": "url"}},
        "replicas": {"max": 1},
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    body = deepcopy(BODY)
    *parents, last = path.split(".")
    part: Any = body["spec"]
    for name in parents:
        part = part[int(name)] if name.isdecimal() else part[name]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return body


def test_all_that_can_be_said_is_read() -> None:
    pool = read_pool(BODY)
    wanted, down = pool.wanted, pool.wanted.scale_down
    assert pool.queues == ("imports", "mail")
    assert (pool.deployment, pool.broker.name, pool.generation) == ("worker", "valkey", 3)
    assert (wanted.least, wanted.most, wanted.slots, wanted.most_starting) == (1, 50, 4, 5)
    assert wanted.start_within == timedelta(seconds=2)
    assert (down.after, down.drain_deadline) == (timedelta(seconds=90), timedelta(hours=2))
    assert (down.on_deadline, down.most_draining) == (OnDeadline.INTERRUPT, 3)
    assert (wanted.floors[0].least, wanted.floors[0].duration) == (2, timedelta(hours=10))
    assert (wanted.is_paused, pool.is_dry_run) == (True, True)


def test_the_rest_has_defaults() -> None:
    pool = read_pool(SMALLEST)
    assert (pool.wanted.least, pool.wanted.start_within) == (0, timedelta(seconds=5))
    assert pool.wanted.scale_down.after == timedelta(seconds=60)
    assert (pool.prefix, pool.is_dry_run, pool.wanted.is_paused) == ("jangada", False, False)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("queues", None, "queues is missing"),
        ("replicas.max", None, "replicas.max is missing"),
        ("replicas.min", 51, ".spec: the minimum"),
        ("broker.secretKeyRef.key", None, "key is missing"),
        ("scaleTargetRef.name", None, "scaleTargetRef.name is missing"),
        ("objective.startWithin", "soon", ".spec.objective.startWithin: 'soon' is no duration"),
        ("objective.startWithin", "0s", "objective must be"),
        ("scaleDown.after", "5", "lacks a unit"),
        ("scaleDown.drainDeadline", "2d", ".spec.scaleDown.drainDeadline: '2d' is in days"),
        ("scaleDown.onDeadline", "Explode", "'Explode' is not a valid OnDeadline"),
        ("floors.0.cron", "at eight", ".spec.floors[0]: The expression has no meaning"),
        ("floors.0.timeZone", "Mars/Base", ".spec.floors[0]: 'Mars/Base' is no time zone"),
        ("floors.0.duration", "200h", ".spec.floors[0]: a floor's duration"),
        ("floors.0.min", 0, ".spec.floors[0]: a floor's minimum"),
        ("floors.0.min", None, "min is missing"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, named: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        read_pool(changed(path, value))
    assert named in str(refused.value)
