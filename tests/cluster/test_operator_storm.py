"""Two hundred pods go, under jobs of a tenth of a second to a minute."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest
from chaos.harness import until
from cluster.bed import Bed
from cluster.field import Field
from cluster.operators import Operator, operator
from cluster.pools import SLOW, all_drained, pool, wait_pods

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(2400)]

DOWNS = 200
MOST = 20
SEED = 20261129


@pytest.fixture
def running(installed: Bed, tmp_path: Path) -> Iterator[Operator]:
    with operator(installed, tmp_path) as made:
        yield made


async def test_two_hundred_pods_go_and_nothing_is_interrupted(
    place: Field, running: Operator, record_property: Callable[[str, object], None]
) -> None:
    """Demand comes in waves, so that it returns in the midst of drains; long jobs outlast many."""
    drawn = random.Random(SEED)  # noqa: S311 - no secret
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 0, "max": MOST}))
    while len(place.kubelet.exits(place.namespace)) < DOWNS:
        for _ in range(drawn.randint(MOST, 4 * MOST)):
            # From a tenth of a second to a minute, as likely in each decade.
            await place.send(seconds=min(60.0, 0.1 * 10 ** drawn.uniform(0, 1.6)))
        if drawn.random() < 0.1:
            await place.send(seconds=60.0)
        busy = drawn.choice((0, 0, 1, 3))
        assert await until(partial(is_calm, place, busy), SLOW), place.last_words
        await anyio.sleep(drawn.uniform(0, 4))  # allow sleep: the load has pauses
    assert await place.settled(), place.last_words
    wait_pods(place, 0)

    counts, exits = place.ledger.audit(), place.kubelet.exits(place.namespace)
    changes = Counter(each["reason"] for each in place.api.list("events"))
    record_property(
        "figure",
        f"{len(exits)} pods went, {dict(changes)}; {counts}; seed {SEED}",
    )
    assert all_drained(place) == []
    assert (counts.violations, counts.repeated) == (0, 0)
    assert "Mispicked" not in changes
    assert metric(running, "jangada_workerpool_interrupted_total") == 0
    assert metric(running, "jangada_workerpool_mispicked_total") == 0


def is_calm(place: Field, busy: int) -> bool:
    """Whether no more than so many jobs wait or run."""
    return len(place.ledger.jobs("enqueued") - place.ledger.jobs("end")) <= busy


def metric(running: Operator, name: str) -> float:
    """The sum of a series over its labels."""
    lines = running.metrics().splitlines()
    found = [float(line.split()[-1]) for line in lines if line.startswith(name + "{")]
    assert found, f"no series {name}"
    return sum(found)
