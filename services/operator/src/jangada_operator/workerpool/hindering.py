"""What keeps a pool from its size though its spec allows it, and what to do then.

These are the reasons of `Limited` that aren't the policy's. Messages hold no figures that always
move, so that a status isn't written for their sake.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from jangada_operator.workerpool.cluster import Deployment, Pod
from jangada_operator.workerpool.draining import Target
from jangada_operator.workerpool.reasons import State
from jangada_operator.workerpool.status import Hindrance


def rolling_out(deployment: Deployment, target: Target) -> Hindrance:
    """Nobody goes during a rollout: its old pods would be deleted first, busy or not."""
    name = deployment.name
    overdue = ", and is past its progress deadline" if deployment.is_overdue else ""
    text = (
        f"{name} is being rolled out{overdue}: {deployment.updated} of {deployment.there} pods are "
        f"of {target.newest.name}, its newest ReplicaSet. Pods that are too many go when all are. "
        f"kubectl -n {target.namespace} rollout status deployment/{name} says what it waits for; "
        f"rollout undo ends one that is stuck."
    )
    return Hindrance(State.ROLLING_OUT, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The size that was asked for, and who of it isn't there. Moments are seconds of the epoch."""

    deployment: Deployment
    target: Target
    late: Sequence[Pod]
    """Pods that haven't reported, though others take far less time to; the oldest first."""
    missing: int
    """Pods that should have been created for longer than that."""
    missing_since: float


def missing_of(deployment: Deployment, target: Target, pods: Iterable[Pod]) -> int:
    """How many pods were asked for and weren't created."""
    there = sum(pod.is_active for pod in pods)
    fresh = sum(pod.is_active for pod in target.pods.values())
    return max(0, deployment.replicas - there, target.newest.replicas - fresh)


def not_starting(expected: Expected) -> Hindrance | None:
    """What the cluster says of pods that don't come."""
    late, missing = expected.late, expected.missing
    if not late and not missing:
        return None
    starts = [pod.created for pod in late[:1]] + [expected.missing_since] * bool(missing)
    since = datetime.fromtimestamp(int(min(starts)), UTC).isoformat().replace("+00:00", "Z")
    size = max(expected.deployment.replicas, expected.target.newest.replicas)
    parts = [f"{len(late) + missing} of {size} replicas haven't started, the first since {since}."]
    if missing:
        parts.append(_not_created(expected))
    if late:
        parts.append(_not_working(late, expected.target.namespace))
    return Hindrance(State.PODS_NOT_STARTING, " ".join(parts))


def _not_created(expected: Expected) -> str:
    newest, namespace = expected.target.newest, expected.target.namespace
    if not newest.failure:
        return (
            f"Not created: {expected.missing}, and {newest.name} doesn't say why. Does the "
            f"cluster's controller manager run?"
        )
    mend = f"kubectl -n {namespace} describe replicaset {newest.name} shows more."
    if "quota" in newest.failure:
        mend = "Raise the quota, or lower replicas.max to what fits."
    return f"Not created: {expected.missing}. {newest.failure.rstrip('.')}. {mend}"


def _not_working(late: Sequence[Pod], namespace: str) -> str:
    """By the oldest: the others nearly always wait for the same."""
    pod = late[0]
    text = f"Not working: {len(late)}. {pod.name}: "
    if not pod.is_assigned:
        why = pod.waits_for or "it has no node yet"
        return f"{text}{why.rstrip('.')}. Make room, or lower replicas.max to what fits."
    if pod.waits_for or not pod.is_ready:
        why = pod.waits_for or f"it is {pod.phase} and not ready"
        return (
            f"{text}{why.rstrip('.')}. kubectl -n {namespace} describe pod {pod.name}, and its log."
        )
    return (
        f"{text}it is ready, but no worker reports its UID to these queues. Does one die as it "
        f"starts? kubectl -n {namespace} logs {pod.name} shows it. Else compare queues, broker and "
        f"prefix with the worker's, and set JANGADA_WORKER__POD_UID from metadata.uid."
    )
