"""What is kept of the cluster, and who belongs to whom."""

from datetime import UTC, datetime
from typing import Any

from jangada_operator.watching import Cluster
from jangada_operator.workerpool.cluster import COST, LONGEST, LOWEST_COST, REVISION
from jangada_operator.workerpool.spec import PoolKey

type Body = dict[str, Any]


def owned(kind: str, uid: str) -> list[Body]:
    return [{"apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": uid, "controller": True}]


def metadata(name: str, **more: Any) -> Body:  # noqa: ANN401 - as Kubernetes writes it
    at = "2026-11-28T10:00:00Z"
    given = {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": at, **more}
    return {"metadata": given}


def deployment(*, generation: int = 1, **status: Any) -> Body:  # noqa: ANN401 - as above
    spec = {"replicas": 3, "template": {"spec": {"terminationGracePeriodSeconds": 60}}}
    return {**metadata("worker", generation=generation), "spec": spec, "status": status}


def replica_set(name: str, revision: int, replicas: int = 3, counted: int = 3) -> Body:
    more = {"annotations": {REVISION: str(revision)}, "generation": 2}
    found = metadata(name, ownerReferences=owned("Deployment", "worker"), **more)
    status = {"replicas": counted, "observedGeneration": 2}
    return {**found, "spec": {"replicas": replicas}, "status": status}


def pod(name: str, owner: str, **more: Any) -> Body:  # noqa: ANN401 - as above
    found = metadata(name, ownerReferences=owned("ReplicaSet", owner), **more)
    ready = [{"type": "Ready", "status": "True"}]
    return {
        **found,
        "spec": {"nodeName": "n"},
        "status": {"phase": "Running", "conditions": ready},
    }


def heard() -> Cluster:
    cluster = Cluster()
    cluster.hear_deployment(deployment(observedGeneration=1), is_gone=False)
    for revision, name in enumerate(["old", "new"], 1):
        cluster.hear_replica_set(replica_set(name, revision), is_gone=False)
        cluster.hear_pod(pod(f"{name}-1", name), is_gone=False)
    return cluster


def test_pods_belong_to_their_deployment_through_its_replica_sets() -> None:
    cluster = heard()
    found = cluster.deployments[PoolKey("shop", "worker")]
    newest = cluster.newest(found)
    assert newest is not None
    assert newest.name == "new"
    assert set(cluster.pods_of(found)) == {"old-1", "new-1"}
    assert found.grace == 60


def test_what_is_deleted_is_forgotten() -> None:
    cluster = heard()
    cluster.hear_pod(pod("old-1", "old"), is_gone=True)
    cluster.hear_replica_set(replica_set("old", 1), is_gone=True)
    cluster.forget_pods({"new-1"})
    assert not cluster.pods
    assert list(cluster.replica_sets["worker"]) == ["new"]
    cluster.hear_deployment(deployment(), is_gone=True)
    assert not cluster.deployments


def test_pods_of_nobody_are_none_of_ours() -> None:
    cluster = Cluster()
    cluster.hear_pod(metadata("alone"), is_gone=False)
    cluster.hear_pod(
        pod("job", "x") | metadata("job", ownerReferences=owned("Job", "j")), is_gone=False
    )
    assert not cluster.pods


def test_a_pod_is_known_by_the_few_fields_that_decide() -> None:
    cluster = heard()
    annotations = {COST: str(LOWEST_COST)}
    cluster.hear_pod(
        pod("new-1", "new", annotations=annotations, deletionTimestamp="2026-11-28T10:00:00Z"),
        is_gone=False,
    )
    found = cluster.pods["new"]["new-1"]
    assert (found.cost, found.is_deleted, found.is_active) == (LOWEST_COST, True, False)
    cluster.hear_pod(pod("new-1", "new", annotations={COST: "cheap"}), is_gone=False)
    assert cluster.pods["new"]["new-1"].rank == (True, 2, True, 0)


def test_no_process_of_a_pod_is_older_than_its_oldest_running_container() -> None:
    cluster, body = heard(), pod("new-1", "new")
    assert cluster.pods["new"]["new-1"].alive_since is None
    body["status"]["containerStatuses"] = [
        {"state": {"running": {"startedAt": "2026-11-28T10:00:07Z"}}, "restartCount": 1},
        {"state": {"running": {"startedAt": "2026-11-28T10:00:05Z"}}},
        {"state": {"waiting": {"reason": "CrashLoopBackOff"}}},
    ]
    cluster.hear_pod(body, is_gone=False)
    moment = datetime(2026, 11, 28, 10, 0, 5, tzinfo=UTC)
    assert cluster.pods["new"]["new-1"].alive_since == moment.timestamp()


def test_what_keeps_a_pod_from_running_is_known_in_the_cluster_s_words() -> None:
    cluster, body = heard(), pod("new-1", "new")

    def waits_for() -> str:
        cluster.hear_pod(body, is_gone=False)
        return cluster.pods["new"]["new-1"].waits_for

    assert waits_for() == ""
    waiting = {"reason": "ContainerCreating"}
    body["status"]["containerStatuses"] = [{"state": {"waiting": waiting}}]
    assert waits_for() == ""
    waiting |= {"reason": "ImagePullBackOff", "message": "no such image"}
    assert waits_for() == "ImagePullBackOff: no such image"
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes fit."}
    body["status"]["conditions"].append(unscheduled)
    assert waits_for() == "0/3 nodes fit."
    unscheduled["message"] = "x" * 9999
    assert len(waits_for()) == LONGEST


def test_why_pods_cannot_be_created_is_known_for_as_long_as_it_is_so() -> None:
    cluster, body = heard(), replica_set("new", 2)
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": "exceeded quota",
        "lastTransitionTime": "2026-11-28T10:00:00Z",
    }
    body["status"]["conditions"] = [failure]
    cluster.hear_replica_set(body, is_gone=False)
    found = cluster.replica_sets["worker"]["new"]
    moment = datetime(2026, 11, 28, 10, tzinfo=UTC)
    assert (found.failure, found.failed_since) == ("exceeded quota", moment.timestamp())
    failure["status"] = "False"
    cluster.hear_replica_set(body, is_gone=False)
    assert cluster.replica_sets["worker"]["new"].failure == ""


def test_a_rollout_is_done_when_all_pods_are_new() -> None:
    cluster = Cluster()

    def after(**status: Any) -> tuple[bool, bool]:  # noqa: ANN401 - as above
        cluster.hear_deployment(deployment(generation=2, **status), is_gone=False)
        found = cluster.deployments[PoolKey("shop", "worker")]
        return found.is_rolled_out, found.is_overdue

    overdue = [{"type": "Progressing", "reason": "ProgressDeadlineExceeded", "status": "False"}]
    assert after(observedGeneration=1, replicas=3, updatedReplicas=3) == (False, False)
    assert after(observedGeneration=2, replicas=4, updatedReplicas=1) == (False, False)
    assert after(observedGeneration=2, replicas=4, updatedReplicas=1, conditions=overdue)[1]
    assert after(observedGeneration=2, replicas=3, updatedReplicas=3) == (True, False)
    assert after(observedGeneration=2) == (True, False), "a size of nothing"


def test_a_deployment_that_was_just_scaled_is_not_being_rolled_out() -> None:
    cluster, key = Cluster(), PoolKey("shop", "worker")
    seen = {"observedGeneration": 1, "replicas": 3}
    cluster.hear_deployment(deployment(generation=2, **seen, updatedReplicas=3), is_gone=False)
    found = cluster.deployments[key]
    assert (found.is_rolled_out, found.is_rolling_out) == (False, False)
    cluster.hear_deployment(deployment(generation=2, **seen, updatedReplicas=1), is_gone=False)
    found = cluster.deployments[key]
    assert (found.is_rolling_out, found.updated, found.there) == (True, 1, 3)


def test_a_pool_that_cannot_be_read_is_kept_with_the_reason() -> None:
    cluster, key = Cluster(), PoolKey("shop", "mail")
    cluster.hear_pool({**metadata("mail"), "spec": {"queues": ["mail"]}}, is_gone=False)
    assert cluster.pools[key].pool is None
    assert "is missing" in cluster.pools[key].why
    cluster.hear_pool(metadata("mail"), is_gone=True)
    assert not cluster.pools
