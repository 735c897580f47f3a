"""Without an operator, and without its definition, workers work; it comes back and goes on."""

from pathlib import Path

import pytest
from cluster.bed import Bed
from cluster.field import Field
from cluster.operators import install, operator
from cluster.pools import all_drained, pool, wait_condition, wait_pods

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
