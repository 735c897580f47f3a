"""What is known of Deployments, ReplicaSets and pods: the few fields that decide something.

The rest of each object is forgotten as it comes in: a cluster has many pods, and they are large.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

COST: Final = "controller.kubernetes.io/pod-deletion-cost"
PREVIOUS: Final = "jangada.dev/previous-deletion-cost"
"""What a pod cost before we lowered it, empty where nobody had said: so the cost is ours."""

REVISION: Final = "deployment.kubernetes.io/revision"
LOWEST_COST: Final = -1000
"""What a pod costs that is to be deleted; others cost nothing, or what their owner says."""

PHASES: Final = {"Pending": 0, "Unknown": 1, "Running": 2}
STARTING: Final = frozenset({"", "PodInitializing", "ContainerCreating"})
"""Why a container waits that nothing is wrong with."""

LONGEST: Final = 300
"""So many letters of what the cluster says are kept for each object."""

ENDED: Final = frozenset({"Succeeded", "Failed"})

type Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod that a ReplicaSet owns."""

    name: str
    uid: str
    owner: str
    created: float
    is_assigned: bool
    phase: str
    is_ready: bool
    cost: int
    is_ours: bool = False
    """Whether we have lowered its cost."""
    is_deleted: bool
    alive_since: float | None
    """When the oldest of its running containers was started: no process in it is older."""
    waits_for: str = ""
    """Why it has no node, or why a container of it doesn't run, in the cluster's words."""

    @property
    def is_active(self) -> bool:
        """Whether its ReplicaSet counts it."""
        return self.phase not in ENDED and not self.is_deleted

    @property
    def rank(self) -> tuple[bool, int, bool, int]:
        """Whom a ReplicaSet deletes first, as far as it is sure: the lowest.

        `ActivePodsWithRanks.Less` of Kubernetes' `pkg/controller/controller_utils.go`, 1.32 to
        1.36; what it compares afterwards (neighbours, ages) isn't ours to arrange.
        """
        return self.is_assigned, PHASES.get(self.phase, 2), self.is_ready, self.cost


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSet:
    """One generation of a Deployment's pods."""

    name: str
    uid: str
    owner: str
    revision: int
    replicas: int
    counted: int
    """How many pods it has by its own count."""
    is_observed: bool
    generation: int
    failure: str = ""
    """Why pods can't be created, in the cluster's words: a quota, an admission webhook."""
    failed_since: float = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether it has done what it was told."""
        return self.is_observed and self.counted == self.replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What a pool scales."""

    name: str
    uid: str
    replicas: int
    is_rolled_out: bool
    there: int
    """How many pods it has by its own count, of all its generations."""
    updated: int
    """How many of them are of the newest one."""
    is_overdue: bool
    """A rollout that is past its progress deadline."""
    grace: float
    """How long a pod may take to end, in seconds."""

    @property
    def is_rolling_out(self) -> bool:
        """Whether it is known to have pods of before; one that was just scaled isn't observed."""
        return self.updated < self.there


def read_pod(body: Body) -> Pod | None:
    """None for a pod that no ReplicaSet owns."""
    metadata, status = body["metadata"], body.get("status") or {}
    owner, annotations = _controller(metadata, "ReplicaSet"), metadata.get("annotations") or {}
    if owner is None:
        return None
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        owner=owner,
        created=_seconds(metadata["creationTimestamp"]),
        is_assigned=bool((body.get("spec") or {}).get("nodeName")),
        phase=status.get("phase", "Pending"),
        is_ready=_condition(status, "Ready") == "True",
        cost=_number(annotations.get(COST)),
        is_ours=PREVIOUS in annotations,
        is_deleted="deletionTimestamp" in metadata,
        alive_since=_alive_since(status),
        waits_for=_waits_for(status)[:LONGEST],
    )


def _waits_for(status: Body) -> str:
    scheduled = _find(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return str(scheduled.get("message") or scheduled.get("reason") or "")
    for state in _container_states(status, "initContainerStatuses", "containerStatuses"):
        waiting = state.get("waiting") or {}
        if (reason := waiting.get("reason", "")) not in STARTING:
            return f"{reason}: {waiting['message']}" if waiting.get("message") else str(reason)
    return ""


def _container_states(status: Body, *names: str) -> Iterator[Body]:
    return (each.get("state") or {} for name in names for each in status.get(name) or ())


def _alive_since(status: Body) -> float | None:
    """None where none runs. Containers that are started before the others may be sidecars."""
    names = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    states = list(_container_states(status, *names))
    started = [each["running"].get("startedAt") for each in states if each.get("running")]
    return min((_seconds(each) for each in started if each), default=None)


def read_replica_set(body: Body) -> ReplicaSet | None:
    """None for one that no Deployment owns."""
    metadata, status = body["metadata"], body.get("status") or {}
    owner = _controller(metadata, "Deployment")
    if owner is None:
        return None
    failure = _find(status, "ReplicaFailure")
    if failure.get("status") != "True":
        failure = {}
    return ReplicaSet(
        name=metadata["name"],
        uid=metadata["uid"],
        owner=owner,
        revision=_number((metadata.get("annotations") or {}).get(REVISION)),
        replicas=body["spec"].get("replicas", 1),
        counted=status.get("replicas", 0),
        is_observed=status.get("observedGeneration", 0) >= metadata.get("generation", 0),
        generation=metadata.get("generation", 0),
        failure=str(failure.get("message") or failure.get("reason") or "")[:LONGEST],
        failed_since=_seconds(failure["lastTransitionTime"]) if failure else 0.0,
    )


def read_deployment(body: Body) -> Deployment:
    metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    template = spec["template"]["spec"]
    is_observed = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
    there, updated = status.get("replicas", 0), status.get("updatedReplicas", 0)
    return Deployment(
        name=metadata["name"],
        uid=metadata["uid"],
        replicas=spec.get("replicas", 1),
        is_rolled_out=is_observed and updated >= there,
        there=there,
        updated=updated,
        is_overdue=_reason(status, "Progressing") == "ProgressDeadlineExceeded",
        grace=float(template.get("terminationGracePeriodSeconds", 30)),
    )


def _controller(metadata: Body, kind: str) -> str | None:
    for each in metadata.get("ownerReferences") or ():
        if each.get("controller") and each.get("kind") == kind:
            return str(each["uid"])
    return None


def _condition(status: Body, kind: str) -> str:
    return str(_find(status, kind).get("status", ""))


def _reason(status: Body, kind: str) -> str:
    return str(_find(status, kind).get("reason", ""))


def _find(status: Body, kind: str) -> Body:
    conditions = status.get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), {})


def _number(text: str | None) -> int:
    """As Kubernetes reads it: what is no number counts for nothing."""
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
