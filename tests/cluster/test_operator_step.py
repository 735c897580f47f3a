"""A step from nothing to 200 jobs a second, under the defaults: how soon the pool follows."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import anyio
import pytest
from cluster.bed import Bed
from cluster.field import Field
from cluster.operators import operator
from cluster.pools import SLOW, all_drained, pool, wait_condition, wait_pods

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(900)]

RATE = 200
SECONDS = 60
SERVICE = 0.1
SLOTS = 10
WITHIN = 5.0
AFTER = 60.0


@pytest.fixture
def running(installed: Bed, tmp_path: Path) -> Iterator[None]:
    with operator(installed, tmp_path):
        yield


async def test_a_pool_follows_a_step_and_goes_when_it_is_over(
    place: Field, running: None, record_property: Callable[[str, object], None]
) -> None:
    place.deploy("worker", replicas=0, slots=SLOTS, grace=600)
    defaults = {"scaleDown": {"after": f"{AFTER:.0f}s"}, "slotsPerReplica": SLOTS}
    place.api.apply(pool("adding", "worker", place.queue, **defaults))
    wait_condition(place.api, "adding", "Ready", "True", "Managed")

    deciding = asyncio.create_task(anyio.to_thread.run_sync(decided, place))
    began = time.monotonic()
    await step(place, began)
    decision = await deciding - began
    assert await place.settled(), place.last_words
    over = max(entry.at for entry in place.ledger.all("end"))
    wait_pods(place, 0)
    gone = time.monotonic() - over

    waits = waited(place)
    in_time = sum(wait <= WITHIN for wait in waits) / len(waits)
    record_property(
        "figure",
        f"{RATE} jobs/s of {SERVICE} s from nothing: decided {decision:.1f} s after the "
        f"first job (2); {100 * in_time:.1f} % of {len(waits)} jobs started within "
        f"{WITHIN:.0f} s (95), the last after {waits[-1]:.1f} s; no pod was left "
        f"{gone - AFTER:.0f} s after scaleDown.after (15)",
    )
    assert all_drained(place) == []
    assert (place.ledger.audit().violations, place.ledger.audit().repeated) == (0, 0)


async def step(place: Field, began: float) -> None:
    """So many jobs a second, caught up with where this process was late."""
    for number in range(RATE * SECONDS):
        ahead = began + number / RATE - time.monotonic()
        await anyio.sleep(max(0.0, ahead))  # allow sleep: the load has a rate
        await place.send(seconds=SERVICE)


def decided(place: Field) -> float:
    """When the pool was first seen to be asked for."""
    place.api.wait_for(
        "deployments", lambda one: one["spec"]["replicas"] > 0, name="worker", within=SLOW
    )
    return time.monotonic()


def waited(place: Field) -> Sequence[float]:
    """How long each job waited, the shortest first."""
    sent = {entry.job: entry.at for entry in place.ledger.all("perhaps")}
    return sorted(entry.at - sent[entry.job] for entry in place.ledger.all("start"))
