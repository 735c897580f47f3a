"""Five hundred pools under one operator."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import anyio
import psutil
import pytest
from cluster.api import Object
from cluster.bed import Bed
from cluster.field import Field
from cluster.operators import operator
from cluster.pools import condition, pool
from cluster.workers import deployment

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(1200)]

POOLS = 500
WATCHED = 60
MEMORY = 256 << 20
SLOW = 600.0


async def test_five_hundred_pools_cost_little(
    place: Field, installed: Bed, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Half of them have work to do, of which the size depends; their pods only seem to run."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(partial(make, place), range(POOLS)))
    for number in range(0, POOLS, 2):
        await place.client.redis.xadd(place.client.keys(f"queue-{number}").stream, {"d": b"{}"})
    with operator(installed, tmp_path) as running:
        place.api.wait_for("workerpools", all_told, within=SLOW)
        process = psutil.Process(running.child.pid)
        began, before, first = process.cpu_times(), versions(place), looked(running.metrics())
        await anyio.sleep(WATCHED)  # allow sleep: for so long it is watched
        ended, after, last = process.cpu_times(), versions(place), looked(running.metrics())
        memory = process.memory_info().rss
    cores = (ended.user + ended.system - began.user - began.system) / WATCHED
    slow, looks = (b - a for a, b in zip(first, last, strict=True))
    idle = [f"pool-{number}" for number in range(1, POOLS, 2)]
    written = sum(after[name] != before[name] for name in idle)
    record_property(
        "figure",
        f"{POOLS} pools: {cores:.2f} cores (0.5), {memory >> 20} MiB (256), {slow} of "
        f"{looks} looks took over 1 s, {written} of "
        f"{len(idle)} idle pools were written to in {WATCHED} s",
    )
    assert memory <= MEMORY
    assert written == 0, "nothing has changed"


def make(place: Field, number: int) -> None:
    name = f"pool-{number}"
    how: Object = {"replicas": 1, "environ": {}, "command": ["true"], "is_process": False}
    place.api.apply(deployment(name, **how))
    place.api.apply(pool(name, name, f"queue-{number}", replicas={"min": 1, "max": 1}))


def all_told(pools: Sequence[Object]) -> bool:
    """A minute after its pod came a pool says that no worker reports from it: its last news."""
    last = ("True", "PodsNotStarting")
    return all(condition(each, "Limited") == last for each in pools)


def versions(place: Field) -> dict[str, str]:
    found = place.api.list("workerpools")
    return {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in found}


def looked(metrics: str) -> tuple[int, int]:
    """How many looks took over a second, of how many."""
    name = "jangada_operator_look_seconds"
    found = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith(name))
    looks = float(found[f"{name}_count"])
    return int(looks - float(found[f'{name}_bucket{{le="1.0"}}'])), int(looks)
