"""Without an operator, and without its definition, workers work; it comes back and goes on."""

from functools import partial
from pathlib import Path

import pytest
from cluster.api import Object
from cluster.bed import Bed
from cluster.field import Field
from cluster.operators import Operator, install, operator
from cluster.pools import SLOW, all_drained, pool, told, wait_condition, wait_pods

from jangada.testing import eventually
from jangada_operator.workerpool.cluster import COST, PREVIOUS

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(900)]

DEFINITION = "workerpools.jangada.dev"


async def test_uninstalling_interrupts_nothing_and_a_new_operator_goes_on(
    place: Field, installed: Bed, programs: Path, tmp_path: Path
) -> None:
    place.deploy("worker", replicas=0, grace=600)
    own = pool("adding", "worker", place.queue, replicas={"min": 3, "max": 4})
    with operator(installed, tmp_path, 1):
        place.api.apply(own)
        await place.wait_working("worker", 3)
        long = await place.send(gate="open")
        assert await place.started(long)
    before = {each["metadata"]["uid"] for each in place.pods("worker")}
    place.api.delete("customresourcedefinitions", DEFINITION)
    place.api.wait_for("customresourcedefinitions", lambda one: one is None, name=DEFINITION)
    short = await place.send(seconds=0.1)
    assert await place.started(short)
    assert {each["metadata"]["uid"] for each in place.pods("worker")} == before

    install(installed, programs)
    with operator(installed, tmp_path, 2):
        place.api.apply({**own, "spec": {**own["spec"], "replicas": {"min": 0, "max": 4}}})
        wait_condition(place.api, "adding", "Ready", "True", "Managed")
        wait_pods(place, 1)
        place.open_gate("open")
        assert await place.settled(), place.last_words
        wait_pods(place, 0)
    assert all_drained(place) == []
    assert (place.ledger.audit().violations, place.ledger.audit().repeated) == (0, 0)


async def test_an_owner_s_deletion_cost_comes_back_after_an_operator_s_death(
    place: Field, installed: Bed, tmp_path: Path
) -> None:
    """A busy pod that isn't ready keeps the others from going, once their cost is lowered."""
    place.deploy("worker", replicas=0, grace=600)
    few: Object = {"replicas": {"min": 3, "max": 3}}
    with operator(installed, tmp_path, 1) as first:
        place.api.apply(pool("adding", "worker", place.queue, **few))
        for each in await place.wait_working("worker", 3):
            own = {"metadata": {"annotations": {COST: "7"}}}
            place.api.patch("pods", each["metadata"]["name"], own)
        long = await place.send(gate="open")
        assert await place.started(long)
        busy = place.pod_of(long)
        place.kubelet.force_ready(busy, False)
        place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 0, "max": 3}))
        wait_costs(place, ("-1000", "7"), ("-1000", "7"), ("7", None))
        first.kill()
    with operator(installed, tmp_path, 2):
        place.api.apply(pool("adding", "worker", place.queue, **few))
        wait_costs(place, ("7", None), ("7", None), ("7", None))
        place.kubelet.force_ready(busy, None)
        place.open_gate("open")
        assert await place.settled()
    assert place.ledger.audit().violations == 0


def wait_costs(place: Field, *wanted: tuple[str, str | None]) -> None:
    """Until the pods have these costs, and had these before."""

    def costs(pods: list[Object]) -> list[tuple[str | None, str | None]]:
        found = [each["metadata"].get("annotations") or {} for each in pods]
        return sorted(((each.get(COST), each.get(PREVIOUS)) for each in found), key=str)

    place.api.wait_for(
        "pods",
        lambda pods: costs(pods) == sorted(wanted, key=str),
        selector="app=worker",
        within=SLOW,
    )


async def test_an_operator_that_starts_beside_busy_pods_asks_for_no_others(
    place: Field, installed: Bed, tmp_path: Path
) -> None:
    """What it hasn't heard of yet it doesn't take for missing."""
    place.deploy("worker", replicas=6, grace=600)
    await place.wait_working("worker", 6)
    jobs = [await place.send(gate="open") for _ in range(6)]
    for job in jobs:
        assert await place.started(job)
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 6, "max": 8}))
    for number in range(3):
        with operator(installed, tmp_path, number) as running:
            await eventually(partial(has_looked, running))
            assert place.api.get("deployments", "worker")["spec"]["replicas"] == 6
    assert told(place, "ScaledUp") == []
    place.open_gate("open")
    assert await place.settled()
    assert place.ledger.audit().violations == 0


def has_looked(running: Operator) -> bool:
    """A few times, so that what it decides has been done."""
    if "listens on port" not in running.log.read_text("utf-8"):
        return False
    count = running.metrics().partition("jangada_operator_look_seconds_count ")[2]
    return float(count.split()[0]) >= 5
