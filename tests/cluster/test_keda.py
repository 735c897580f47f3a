"""KEDA scales a Deployment of this cluster by a stream, as it does in any other."""

from collections.abc import Iterator

import pytest
import redis
import tools
from cluster.bed import Bed
from cluster.field import Field
from cluster.keda import scaled_object, start_keda, stream_trigger
from cluster.workers import deployment

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(300)]
PATIENCE = 180


@pytest.fixture(scope="module")
def keda(bed: Bed) -> None:
    if (programs := tools.find(tools.KEDA)) is None:
        pytest.skip("KEDA isn't built: `make tools ARGS=keda` does it")
    start_keda(bed, programs)


@pytest.fixture
def server(queue_server: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(queue_server, socket_timeout=10) as client:
        yield client


async def test_a_stream_scales_a_deployment(
    keda: None, place: Field, queue_server: str, server: redis.Redis
) -> None:
    idle = deployment("web", replicas=0, environ={}, command=["true"], is_process=False)
    place.api.apply(idle)
    trigger = stream_trigger(place.api, queue_server, place.queue, 5)
    place.api.apply(scaled_object("web", most=4, triggers=[trigger]))
    for _ in range(20):
        server.xadd(place.queue, {"job": "any"})
    place.api.wait_for("deployments", lambda web: has(web, 4), name="web", within=PATIENCE)
    server.delete(place.queue)
    place.api.wait_for("deployments", lambda web: has(web, 0), name="web", within=PATIENCE)


def has(deployment: dict[str, dict[str, int]], count: int) -> bool:
    return deployment["status"].get("replicas", 0) == count == deployment["spec"]["replicas"]
