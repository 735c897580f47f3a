"""What an operator must not believe: replicas that never came, and pods of other queues."""

from collections.abc import Iterator
from functools import partial

import pytest
from cluster.bed import Bed
from cluster.field import Field
from cluster.operators import operator
from cluster.pools import SLOW, all_drained, allow_pods, pool, wait_condition, wait_pods

from jangada.testing import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def running(installed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with operator(installed, tmp_path_factory.mktemp("operator")):
        yield


async def test_those_that_are_there_work_though_others_can_t_be_created(
    place: Field, running: None
) -> None:
    """A quota lets three of eight be; when nothing waits any more nobody asks for the others."""
    allow_pods(place, 3)
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue))
    for _ in range(2):
        for _ in range(60):
            await place.send(seconds=1.0)
        assert await place.settled(), place.last_words
    wait_pods(place, 0)
    place.api.wait_for(
        "deployments", lambda one: one["spec"]["replicas"] == 0, name="worker", within=SLOW
    )
    assert all_drained(place) == []
    assert (place.ledger.audit().violations, place.ledger.audit().repeated) == (0, 0)


async def test_who_works_for_the_queues_of_before_isn_t_idle(place: Field, running: None) -> None:
    """A pool whose queues are changed sees nothing of its pods, and so lets them be."""
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue))
    jobs = [await place.send(gate="open") for _ in range(2)]
    for job in jobs:
        assert await place.started(job)
        await eventually(partial(place.says_busy, place.pod_of(job)))
    place.api.apply(pool("adding", "worker", f"{place.queue}-other"))
    wait_condition(place.api, "adding", "Limited", "True", "ScaleDownBlocked")
    assert len(place.pods("worker")) == 2
    assert place.kubelet.exits(place.namespace) == []
    place.api.apply(pool("adding", "worker", place.queue))
    place.open_gate("open")
    assert await place.settled(), place.last_words
    wait_pods(place, 0)
    assert all_drained(place) == []
