"""Pods that don't come are told with the cluster's own reason, and how to mend it."""

from dataclasses import replace

import pytest

from jangada_operator.workerpool.cluster import Deployment, Pod, ReplicaSet
from jangada_operator.workerpool.draining import Target
from jangada_operator.workerpool.hindering import (
    Expected,
    missing_of,
    not_starting,
    rolling_out,
)
from jangada_operator.workerpool.reasons import State

AT = 1_796_000_000.0
POD = Pod(
    name="worker-abc-1",
    uid="1",
    owner="rs",
    created=AT,
    is_assigned=True,
    phase="Running",
    is_ready=True,
    cost=0,
    is_deleted=False,
    alive_since=None,
)
NEWEST = ReplicaSet(
    name="worker-abc",
    uid="rs",
    owner="d",
    revision=2,
    replicas=4,
    counted=4,
    is_observed=True,
    generation=1,
)
DEPLOYMENT = Deployment(
    name="worker",
    uid="d",
    replicas=4,
    is_rolled_out=True,
    there=4,
    updated=4,
    is_overdue=False,
    grace=30.0,
)


def target(newest: ReplicaSet = NEWEST, count: int = 0) -> Target:
    pods = {str(number): replace(POD, uid=str(number)) for number in range(count)}
    return Target("shop", "worker", newest, pods, may_shrink=True)


def told(*late: Pod, missing: int = 0, newest: ReplicaSet = NEWEST) -> str:
    found = not_starting(
        Expected(
            deployment=DEPLOYMENT,
            target=target(newest),
            late=late,
            missing=missing,
            missing_since=AT + 5,
        )
    )
    assert found is not None
    assert found.reason is State.PODS_NOT_STARTING
    return found.message


def test_nothing_is_said_of_pods_that_come() -> None:
    expected = Expected(
        deployment=DEPLOYMENT, target=target(), late=(), missing=0, missing_since=AT
    )
    assert not_starting(expected) is None


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (
            replace(POD, is_assigned=False, phase="Pending", waits_for="0/3 nodes are available."),
            "worker-abc-1: 0/3 nodes are available. Make room",
        ),
        (replace(POD, is_assigned=False, phase="Pending"), "it has no node yet. Make room"),
        (
            replace(POD, phase="Pending", is_ready=False, waits_for="ImagePullBackOff: no such"),
            "worker-abc-1: ImagePullBackOff: no such. kubectl -n shop describe pod worker-abc-1",
        ),
        (replace(POD, is_ready=False), "it is Running and not ready. kubectl"),
        (POD, "no worker reports its UID to these queues"),
    ],
)
def test_a_pod_that_does_no_work_is_told_with_what_it_waits_for(pod: Pod, said: str) -> None:
    text = told(pod, replace(POD, created=AT + 60))
    assert said in text
    assert "2 of 4 replicas haven't started, the first since 2026-11-30T00:53:20Z" in text


def test_pods_that_cannot_be_created_are_told_with_the_reason() -> None:
    quota = replace(NEWEST, failure='pods "worker-abc-" is forbidden: exceeded quota: few')
    text = told(missing=2, newest=quota)
    assert "2 of 4 replicas haven't started, the first since 2026-11-30T00:53:25Z" in text
    assert "Not created: 2. pods" in text
    assert "exceeded quota: few. Raise the quota" in text
    other = told(missing=2, newest=replace(NEWEST, failure="denied the request"))
    assert "denied the request. kubectl -n shop describe replicaset worker-abc" in other
    assert "controller manager" in told(missing=2)


def test_both_are_told_together() -> None:
    text = told(POD, missing=1, newest=replace(NEWEST, failure="exceeded quota"))
    assert "2 of 4" in text
    assert "Not created: 1." in text
    assert "Not working: 1." in text


@pytest.mark.parametrize(
    ("there", "fresh", "missing"), [(4, 4, 0), (3, 3, 1), (5, 3, 1), (0, 0, 4)]
)
def test_missing_is_what_the_size_or_the_newest_replica_set_lacks(
    there: int, fresh: int, missing: int
) -> None:
    """During a rollout pods of before may be more than enough."""
    pods = [replace(POD, uid=str(number)) for number in range(there)]
    gone = replace(POD, uid="gone", is_deleted=True)
    assert missing_of(DEPLOYMENT, target(count=fresh), [*pods, gone]) == missing


def test_a_rollout_is_told_with_how_far_it_is() -> None:
    deployment = replace(DEPLOYMENT, is_rolled_out=False, updated=1, there=5)
    text = rolling_out(deployment, target()).message
    assert "1 of 5 pods are of worker-abc" in text
    assert "deadline" not in text
    assert "deadline" in rolling_out(replace(deployment, is_overdue=True), target()).message
