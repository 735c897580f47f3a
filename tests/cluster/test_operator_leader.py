"""Of several operators one acts, and another goes on when it dies."""

from pathlib import Path

import pytest
from cluster.bed import Bed
from cluster.field import Field
from cluster.operators import LEASE, NAMESPACE, holder, operator
from cluster.pools import all_drained, pool, wait_pods

from jangada.testing import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_another_operator_leads_after_the_leader_s_death(
    place: Field, installed: Bed, tmp_path: Path
) -> None:
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue))
    with operator(installed, tmp_path, 1) as first:
        await eventually(lambda: holder(place.api))
        leader = holder(place.api)
        with operator(installed, tmp_path, 2) as second:
            waits = f"waits: {leader} holds {NAMESPACE}/{LEASE}"
            await eventually(lambda: waits in second.log.read_text("utf-8"))
            job = await place.send(seconds=0.1)
            assert await place.started(job)
            first.kill()
            await eventually(lambda: holder(place.api) not in {"", leader})
            later = [await place.send(seconds=0.5) for _ in range(8)]
            assert await place.settled(), later
            wait_pods(place, 0)
    assert all_drained(place) == []
    assert place.ledger.audit().violations == 0
