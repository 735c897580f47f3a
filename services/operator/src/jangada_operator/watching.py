"""What is in the cluster, kept up to date by kopf's watches, forgotten but for a few fields.

kopf begins a watch anew where it breaks, by listing what is there; what went away meanwhile it
doesn't tell. `forget_pods` takes that out by a list of what is there, and whoever deletes something
asks the API before.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import kopf

from jangada_operator.workerpool.cluster import (
    Body,
    Deployment,
    Pod,
    ReplicaSet,
    read_deployment,
    read_pod,
    read_replica_set,
)
from jangada_operator.workerpool.spec import (
    API_VERSION,
    PLURAL,
    InvalidSpec,
    Pool,
    PoolKey,
    read_pool,
)

POOLS: Final = (API_VERSION, PLURAL)
DEPLOYMENTS: Final = ("apps/v1", "deployments")
REPLICA_SETS: Final = ("apps/v1", "replicasets")
PODS: Final = ("v1", "pods")
WATCHED: Final = (POOLS, DEPLOYMENTS, REPLICA_SETS, PODS)


@dataclass(slots=True)
class Written:
    """A WorkerPool as it was written: read, or why it can't be."""

    body: Body
    pool: Pool | None
    why: str = ""


@dataclass(slots=True)
class Cluster:
    """All that was heard. Objects of one owner are found by the owner's UID."""

    pools: dict[PoolKey, Written] = field(default_factory=dict)
    deployments: dict[PoolKey, Deployment] = field(default_factory=dict)
    replica_sets: dict[str, dict[str, ReplicaSet]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    pods: dict[str, dict[str, Pod]] = field(default_factory=lambda: defaultdict(dict))
    heard: set[str] = field(default_factory=set)
    """The UIDs of all objects that were heard of and not of their end, also those kept nowhere."""

    def newest(self, deployment: Deployment) -> ReplicaSet | None:
        sets = self.replica_sets.get(deployment.uid, {}).values()
        return max(sets, key=lambda each: each.revision, default=None)

    def pods_of(self, deployment: Deployment) -> Mapping[str, Pod]:
        """Of all its generations."""
        sets = self.replica_sets.get(deployment.uid, {})
        return {uid: pod for each in sets for uid, pod in self.pods.get(each, {}).items()}

    def hear(self, kind: tuple[str, str], body: Body, *, is_gone: bool) -> None:
        """Anything of what is watched; one that can't be understood was heard of all the same."""
        uid = body["metadata"]["uid"]
        if is_gone:
            self.heard.discard(uid)
        else:
            self.heard.add(uid)
        {
            POOLS: self.hear_pool,
            DEPLOYMENTS: self.hear_deployment,
            REPLICA_SETS: self.hear_replica_set,
            PODS: self.hear_pod,
        }[kind](body, is_gone=is_gone)

    def hear_pool(self, body: Body, *, is_gone: bool) -> None:
        key = PoolKey(body["metadata"]["namespace"], body["metadata"]["name"])
        if is_gone:
            self.pools.pop(key, None)
            return
        try:
            self.pools[key] = Written(body, read_pool(body))
        except InvalidSpec as error:
            self.pools[key] = Written(body, None, str(error))

    def hear_deployment(self, body: Body, *, is_gone: bool) -> None:
        key = PoolKey(body["metadata"]["namespace"], body["metadata"]["name"])
        if is_gone:
            self.deployments.pop(key, None)
        else:
            self.deployments[key] = read_deployment(body)

    def hear_replica_set(self, body: Body, *, is_gone: bool) -> None:
        found = read_replica_set(body)
        if found is not None:
            _keep(self.replica_sets, found.owner, found.uid, None if is_gone else found)

    def hear_pod(self, body: Body, *, is_gone: bool) -> None:
        pod = read_pod(body)
        if pod is not None:
            _keep(self.pods, pod.owner, pod.uid, None if is_gone else pod)

    def forget_pods(self, gone: Collection[str]) -> None:
        """Those with these UIDs."""
        self.heard.difference_update(gone)
        for owner, pods in list(self.pods.items()):
            for uid in [uid for uid in pods if uid in gone]:
                _keep(self.pods, owner, uid, None)


def _keep[T](index: dict[str, dict[str, T]], owner: str, uid: str, found: T | None) -> None:
    if found is not None:
        index[owner][uid] = found
    elif owner in index:
        index[owner].pop(uid, None)
        if not index[owner]:
            del index[owner]


def watch(cluster: Cluster) -> kopf.OperatorRegistry:
    """The handlers that keep a cluster up to date. They write nothing, and block no deletion."""
    registry = kopf.OperatorRegistry()
    for version, plural in WATCHED:

        async def told(
            event: kopf.RawEvent,
            kind: tuple[str, str] = (version, plural),
            **_: Any,  # noqa: ANN401 - kopf's own
        ) -> None:
            cluster.hear(kind, event["object"], is_gone=event["type"] == "DELETED")

        kopf.on.event(version, plural, id=f"hear-{plural}", registry=registry)(told)
    return registry
