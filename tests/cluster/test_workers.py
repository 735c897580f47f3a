"""Pods that are real workers on a real queue: they start, end and die as pods do."""

import pytest
from cluster.field import Field
from cluster.workers import SECRET

from jangada.testing import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(300)]


@pytest.mark.smoke
async def test_a_deployment_becomes_workers_that_run_jobs(place: Field) -> None:
    place.deploy("worker", replicas=3)
    pods = await place.wait_working("worker", 3)
    assert await place.reported() == {pod["metadata"]["uid"] for pod in pods}
    jobs = [await place.send(seconds=0.2) for _ in range(9)]
    assert await place.settled(), place.last_words
    counts = place.ledger.audit()
    assert (counts.jobs, counts.violations) == (len(jobs), 0)


@pytest.mark.smoke
async def test_a_deleted_pod_finishes_its_job(place: Field) -> None:
    place.deploy("worker", replicas=1, grace=60)
    place.wait_ready("worker", 1)
    job = await place.send(gate="open")
    assert await place.started(job), place.last_words
    pod = place.pod_of(job)
    life = place.kubelet.life(pod)
    place.api.delete("pods", pod["metadata"]["name"])
    await eventually(lambda: life.was_asked)
    place.open_gate("open")
    assert await place.settled(), place.last_words
    await eventually(lambda: life.is_over)
    (ended,) = [each for each in place.kubelet.exits(place.namespace) if each.uid == life.uid]
    assert (ended.code, ended.was_asked, ended.was_killed, ended.held) == (0, True, False, 1)
    assert not ended.was_drained
    assert len(place.ledger.of("start", job)) == 1


@pytest.mark.smoke
async def test_a_pod_that_outlasts_its_grace_is_killed_and_its_job_runs_elsewhere(
    place: Field,
) -> None:
    place.deploy("worker", replicas=2, grace=1)
    place.wait_ready("worker", 2)
    job = await place.send(gate="open")
    assert await place.started(job), place.last_words
    pod = place.pod_of(job)
    place.api.delete("pods", pod["metadata"]["name"])
    assert await place.started(job, 2), place.last_words
    place.open_gate("open")
    assert await place.settled()
    exits = {each.uid: each for each in place.kubelet.exits(place.namespace)}
    assert exits[pod["metadata"]["uid"]].was_killed
    first, second = place.ledger.of("start", job)
    assert first.pid != second.pid
    assert place.ledger.audit().violations == 0


@pytest.mark.smoke
async def test_an_idle_pod_was_drained(place: Field) -> None:
    place.deploy("worker", replicas=1)
    (pod,) = await place.wait_working("worker", 1)
    place.api.scale("deployments", "worker", 0)
    place.api.wait_for("pods", lambda pods: not pods)
    (ended,) = place.kubelet.exits(place.namespace)
    assert (ended.uid, ended.code, ended.was_drained) == (pod["metadata"]["uid"], 0, True)


async def test_a_pod_that_is_deleted_by_force_dies_with_its_object(place: Field) -> None:
    place.deploy("worker", replicas=1)
    (pod,) = place.wait_ready("worker", 1)
    life = place.kubelet.life(pod)
    place.api.delete("pods", life.name, grace=0)
    await eventually(lambda: life.is_over)
    (ended,) = [each for each in place.kubelet.exits(place.namespace) if each.uid == life.uid]
    assert ended.was_killed


async def test_workers_go_on_without_an_api_server(place: Field) -> None:
    place.deploy("worker", replicas=2)
    lives = [place.kubelet.life(pod) for pod in await place.wait_working("worker", 2)]
    before = [life.pids for life in lives]
    with place.bed.outage():
        for _ in range(20):
            await place.send(seconds=0.5)
        assert await place.settled(), place.last_words
        assert [life.pids for life in lives] == before
    place.wait_ready("worker", 2)
    assert [life.pids for life in lives] == before
    assert list(place.kubelet.exits(place.namespace)) == []
    place.api.scale("deployments", "worker", 0)
    place.api.wait_for("pods", lambda pods: not pods)


async def test_a_worker_that_crashes_is_started_again_in_its_pod(place: Field) -> None:
    place.deploy("worker", replicas=1)
    (pod,) = place.wait_ready("worker", 1)
    job = await place.send(gate="open")
    assert await place.started(job), place.last_words
    place.kubelet.crash(pod)
    assert await place.started(job, 2), place.last_words
    place.open_gate("open")
    assert await place.settled()
    (again,) = place.wait_ready("worker", 1)
    assert again["metadata"]["uid"] == pod["metadata"]["uid"]
    (container,) = again["status"]["containerStatuses"]
    assert container["restartCount"] == 1
    assert container["lastState"]["terminated"]["exitCode"] == 137
    assert place.ledger.audit().violations == 0


async def test_a_pod_waits_for_its_secret(place: Field) -> None:
    place.api.delete("secrets", SECRET)
    place.deploy("worker", replicas=1)
    place.api.wait_for("pods", lambda pods: reason(pods) == "CreateContainerConfigError")
    place.api.secret(SECRET, url=place.url)
    place.wait_ready("worker", 1)


def reason(pods: list[dict[str, dict[str, list[dict[str, dict[str, dict[str, str]]]]]]]) -> str:
    """Why the first container of the first pod waits."""
    found = [status for pod in pods for status in pod["status"].get("containerStatuses", [])]
    return found[0]["state"].get("waiting", {}).get("reason", "") if found else ""
