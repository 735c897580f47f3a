"""What fails around a pool: servers that are away, pods that somebody deletes, a rollout."""

from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from cluster.api import Object
from cluster.bed import Bed
from cluster.containers import START_DELAY
from cluster.field import Field, field
from cluster.kubelet import Kubelet
from cluster.operators import operator
from cluster.pools import (
    SLOW,
    all_drained,
    allow_pods,
    pool,
    told,
    wait_condition,
    wait_pods,
    wait_told,
)
from cluster.workers import taskiq_worker

from jangada.local.valkey import EmbeddedValkey

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(900)]

AWAY = 60
"""Seconds for which a server is away."""


@pytest.fixture(scope="module")
def running(installed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with operator(installed, tmp_path_factory.mktemp("operator")):
        yield


async def ended_well(place: Field) -> None:
    """All jobs ran, no pod is left, and each was empty when it was asked to end."""
    assert await place.settled(), place.last_words
    wait_pods(place, 0)
    assert all_drained(place) == []
    assert (place.ledger.audit().violations, place.ledger.audit().repeated) == (0, 0)


async def test_without_an_api_server_work_goes_on_and_the_pool_follows_again(
    place: Field, running: None
) -> None:
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue))
    long = await place.send(gate="open")
    assert await place.started(long)
    with place.bed.outage():
        for _ in range(AWAY):
            await place.send(seconds=1.5)
            await anyio.sleep(1)  # allow sleep: the outage lasts so long
    place.open_gate("open")
    await ended_well(place)
    assert wait_condition(place.api, "adding", "Ready", "True", "Managed")


async def test_without_valkey_no_pod_comes_or_goes(
    bed: Bed, kubelet: Kubelet, running: None, tmp_path: Path
) -> None:
    (tmp_path / "ledger").mkdir()
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        async with field(bed, kubelet, valkey.url, tmp_path / "ledger") as place:
            place.deploy("worker", replicas=0, grace=600)
            place.api.apply(pool("adding", "worker", place.queue))
            jobs = [await place.send(gate="open") for _ in range(3)]
            for job in jobs:
                assert await place.started(job)
            before = names(place.wait_ready("worker", 3))
            valkey.child.stop(())
            wait_condition(place.api, "adding", "SignalsFresh", "False", "Stale")
            assert "doesn't answer: connection refused." in wait_told(place, "Stale")
            for _ in range(AWAY):
                assert names(place.pods("worker")) == before
                await anyio.sleep(1)  # allow sleep: the outage lasts so long
            valkey.restart()
            wait_condition(place.api, "adding", "SignalsFresh", "True", "Fresh")
            wait_told(place, "Fresh")
            assert len(told(place, "Stale")) == 1
            assert names(place.pods("worker")) == before
            place.open_gate("open")
            await ended_well(place)
    bed.check()


async def test_a_flush_interrupts_nothing(
    bed: Bed, kubelet: Kubelet, running: None, tmp_path: Path
) -> None:
    """What waits in a queue without PostgreSQL is gone with it; what runs is not."""
    (tmp_path / "ledger").mkdir()
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        async with field(bed, kubelet, valkey.url, tmp_path / "ledger") as place:
            place.deploy("worker", replicas=0, grace=600)
            place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 0, "max": 3}))
            jobs = [await place.send(gate="open") for _ in range(3)]
            for job in jobs:
                assert await place.started(job)
            before = names(place.wait_ready("worker", 3))
            await place.client.redis.flushall()
            await place.wait_working("worker", 3)
            assert names(place.pods("worker")) == before
            place.open_gate("open")
            later = [await place.send(seconds=0.2) for _ in range(6)]
            assert await place.settled(), later
            await ended_well(place)


async def test_a_busy_pod_deleted_by_hand_ends_its_job_and_is_replaced(
    place: Field, running: None
) -> None:
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue))
    jobs = [await place.send(gate="open") for _ in range(3)]
    for job in jobs:
        assert await place.started(job)
    victim = place.pod_of(jobs[0])["metadata"]["name"]
    place.api.delete("pods", victim)
    more = [await place.send(gate="open") for _ in range(2)]
    for job in more:
        assert await place.started(job), place.last_words
    place.open_gate("open")
    assert await place.settled(), place.last_words
    wait_pods(place, 0)
    assert [each.pod for each in all_drained(place)] == [victim]
    (told,) = all_drained(place)
    assert (told.code, told.was_killed, told.held) == (0, False, 1)
    assert (place.ledger.audit().violations, place.ledger.audit().repeated) == (0, 0)


async def test_a_pod_that_is_killed_comes_again_and_its_job_with_it(
    place: Field, running: None
) -> None:
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue))
    long = await place.send(gate="open")
    assert await place.started(long)
    place.kubelet.crash(place.pod_of(long))
    assert await place.started(long, times=2), place.last_words
    place.open_gate("open")
    assert await place.settled(), place.last_words
    wait_pods(place, 0)
    assert place.ledger.audit().violations == 0


async def test_pods_that_still_start_aren_t_doubled_and_go_when_nobody_needs_them(
    place: Field, running: None
) -> None:
    place.deploy("worker", replicas=0, grace=600, annotations={START_DELAY: "20"})
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 0, "max": 4}))
    jobs = [await place.send(gate="open") for _ in range(2)]
    place.api.wait_for("pods", lambda pods: len(pods) >= 2, selector="app=worker", within=SLOW)
    for job in jobs:
        assert await place.started(job), place.last_words
    assert len(place.pods("worker")) <= 3, "one for each job, and one that may come meanwhile"
    place.open_gate("open")
    await ended_well(place)


async def test_demand_that_comes_back_and_goes_again_interrupts_nothing(
    place: Field, running: None
) -> None:
    """Two scale-downs back to back, and a size that is asked for in the midst of them."""
    place.deploy("worker", replicas=0, grace=600)
    for least in (6, 3, 0, 5, 1, 0):
        place.api.apply(pool("adding", "worker", place.queue, replicas={"min": least, "max": 8}))
        for number in range(8):
            await place.send(seconds=0.1 + number % 3)
        place.api.wait_for(
            "workerpools",
            wants(least),
            name="adding",
            within=SLOW,
        )
    await ended_well(place)


async def test_a_rollout_in_the_midst_of_scaling_loses_and_doubles_nothing(
    place: Field, running: None
) -> None:
    """The rollout ends busy pods, which is its right: within their grace they finish."""
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue))
    for number in range(24):
        await place.send(seconds=1.0 + number % 5)
    place.api.wait_for("pods", lambda pods: len(pods) >= 3, selector="app=worker", within=SLOW)
    revised: Object = {"spec": {"template": {"metadata": {"annotations": {"revision": "2"}}}}}
    place.api.patch("deployments", "worker", revised)
    for number in range(24):
        await place.send(seconds=1.0 + number % 5)
    assert await place.settled(), place.last_words
    wait_pods(place, 0)
    exits = place.kubelet.exits(place.namespace)
    assert [each for each in exits if not each.was_in_order] == []
    assert (place.ledger.audit().violations, place.ledger.audit().repeated) == (0, 0)
    assert "Mispicked" not in {each["reason"] for each in place.api.list("events")}


async def test_pods_that_do_not_come_are_told_with_the_cluster_s_own_reason(
    place: Field, running: None
) -> None:
    huge: Object = {"resources": {"requests": {"cpu": "999999"}}}
    place.deploy("homeless", replicas=0, container=huge)
    place.api.apply(pool("large", "homeless", place.queue, replicas={"min": 1, "max": 1}))
    place.api.wait_for("pods", len, selector="app=homeless")
    allow_pods(place, 2)
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 3, "max": 3}))
    wait_condition(place.api, "large", "Limited", "True", "PodsNotStarting")
    wait_condition(place.api, "adding", "Limited", "True", "PodsNotStarting")
    place.api.wait_for("events", lambda _: len(told(place, "PodsNotStarting")) == 2)
    homeless, few = sorted(told(place, "PodsNotStarting"))
    assert homeless.startswith("1 of 1 replicas haven't started")
    assert "Insufficient cpu" in homeless
    assert few.startswith("2 of 3 replicas haven't started")
    assert "exceeded quota: few" in few
    allow_pods(place, 9)
    await place.wait_working("worker", 3)
    wait_condition(place.api, "adding", "Limited", "False", "Unlimited")


async def test_a_stuck_rollout_is_told_where_it_keeps_pods_from_going(
    place: Field, running: None
) -> None:
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 3, "max": 4}))
    await place.wait_working("worker", 3)
    delayed: Object = {"template": {"metadata": {"annotations": {START_DELAY: "3600"}}}}
    place.api.patch("deployments", "worker", {"spec": delayed})
    place.api.wait_for("pods", lambda pods: len(pods) == 4, selector="app=worker", within=SLOW)
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 0, "max": 4}))
    wait_condition(place.api, "adding", "Limited", "True", "RollingOut")
    assert " pods are of worker-" in wait_told(place, "RollingOut")
    delayed["template"]["metadata"]["annotations"][START_DELAY] = "0"
    place.api.patch("deployments", "worker", {"spec": delayed})
    wait_pods(place, 0)
    wait_condition(place.api, "adding", "Limited", "False", "Unlimited")


async def test_a_pod_that_a_rollout_waits_for_is_not_drained(place: Field, running: None) -> None:
    """It would be ready no more, and the rollout would wait for it for ever."""
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 1, "max": 4}))
    await place.wait_working("worker", 1)
    place.api.patch("deployments", "worker", {"spec": {"minReadySeconds": 30}})
    revised: Object = {"template": {"metadata": {"annotations": {"revision": "2"}}}}
    place.api.patch("deployments", "worker", {"spec": revised})
    place.api.wait_for("pods", lambda pods: len(pods) == 2, selector="app=worker", within=SLOW)
    place.api.apply(pool("adding", "worker", place.queue))
    wait_pods(place, 0)
    exits = place.kubelet.exits(place.namespace)
    assert [each for each in exits if not each.was_in_order] == []


async def test_a_pod_of_several_processes_goes_when_all_of_them_are_empty(
    place: Field, running: None
) -> None:
    command = taskiq_worker(slots=1)
    command[command.index("--workers") + 1] = "2"
    place.deploy("worker", replicas=0, grace=600, command=command)
    how: Object = {"slotsPerReplica": 2}
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 3, "max": 4}, **how))
    await place.wait_working("worker", 3)
    long = await place.send(gate="open")
    assert await place.started(long)
    for number in range(16):
        await place.send(seconds=0.5 + number % 4)
    place.api.apply(pool("adding", "worker", place.queue, **how))
    own = place.pod_of(long)["metadata"]["name"]
    place.api.wait_for(
        "pods", lambda pods: names(pods) == {own}, selector="app=worker", within=SLOW
    )
    place.open_gate("open")
    await ended_well(place)


def names(pods: list[Object]) -> set[str]:
    return {each["metadata"]["name"] for each in pods}


def wants(least: int) -> Callable[[Object], bool]:
    return lambda one: int(one.get("status", {}).get("desiredReplicas", 0)) >= least
