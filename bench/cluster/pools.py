"""WorkerPools of a field, and what is waited for of them."""

from typing import Any, Final

from cluster.api import Api, Object
from cluster.field import Field
from cluster.life import Exit

SLOW: Final = 240.0
"""Seconds to wait for what takes several looks of several controllers."""


def pool(name: str, deployment: str, queue: str, **spec: Any) -> Object:  # noqa: ANN401 - the spec's own
    """A WorkerPool that gives up what it doesn't need for two seconds."""
    return {
        "apiVersion": "jangada.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
            "queues": [queue],
            "broker": {"secretKeyRef": {"name": "valkey", "key": "url"}},
            "replicas": {"min": 0, "max": 8},
            "slotsPerReplica": 1,
            "scaleDown": {"after": "2s"},
            **spec,
        },
    }


def condition(found: Object, kind: str) -> tuple[str, str]:
    """Status and reason of a condition."""
    told = (found.get("status") or {}).get("conditions") or ()
    return next(
        ((each["status"], each["reason"]) for each in told if each["type"] == kind), ("", "")
    )


def wait_condition(api: Api, name: str, kind: str, *wanted: str) -> Object:
    found: Object = api.wait_for(
        "workerpools",
        lambda one: one if one and condition(one, kind) == wanted else None,
        name=name,
        within=SLOW,
    )
    return found


def told(place: Field, reason: str) -> list[str]:
    """The messages of the Events with this reason."""
    return [each["message"] for each in place.api.list("events") if each["reason"] == reason]


def wait_told(place: Field, reason: str) -> str:
    """The first of them, once it is there."""
    found: str = place.api.wait_for(
        "events",
        lambda events: next((each["message"] for each in events if each["reason"] == reason), None),
        within=SLOW,
    )
    return found


def wait_pods(place: Field, count: int) -> None:
    place.api.wait_for("pods", lambda pods: len(pods) == count, selector="app=worker", within=SLOW)


def allow_pods(place: Field, count: int) -> None:
    """By a quota, which is known when this returns."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few"},
        "spec": {"hard": {"pods": str(count)}},
    }
    place.api.apply(quota)
    place.api.wait_for(
        "resourcequotas",
        lambda one: (one.get("status") or {}).get("hard", {}).get("pods") == str(count),
        name="few",
    )


def all_drained(place: Field) -> list[Exit]:
    """Those that ended otherwise than empty, and of their own accord."""
    return [
        each
        for each in place.kubelet.exits(place.namespace)
        if not (each.was_in_order and each.was_drained)
    ]
