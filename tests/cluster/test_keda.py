"""KEDA scales a Deployment of this cluster by a stream, as it does in any other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import tools
from cluster.bed import Bed
from cluster.field import Field
from cluster.keda import scaled_object, start_keda
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
    keda: None, place: Field, server: redis.Redis, tmp_path: Path
) -> None:
    idle = deployment("web", replicas=0, environ={}, command=["true"], is_process=False)
    place.api.apply(idle)
    secret = server.connection_pool.connection_kwargs
    place.api.secret("redis", password=str(secret["password"]))
    parameter = {"parameter": "password", "name": "redis", "key": "password"}
    place.api.apply(
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "TriggerAuthentication",
            "metadata": {"name": "redis"},
            "spec": {"secretTargetRef": [parameter]},
        }
    )
    about = {"address": str(secret["path"]), "stream": place.queue, "streamLength": "5"}
    trigger = {"type": "redis-streams", "metadata": about, "authenticationRef": {"name": "redis"}}
    place.api.apply(scaled_object("web", most=4, triggers=[trigger]))
    for _ in range(20):
        server.xadd(place.queue, {"job": "any"})
    place.api.wait_for("deployments", lambda web: has(web, 4), name="web", within=PATIENCE)
    server.delete(place.queue)
    place.api.wait_for("deployments", lambda web: has(web, 0), name="web", within=PATIENCE)


def has(deployment: dict[str, dict[str, int]], count: int) -> bool:
    return deployment["status"].get("replicas", 0) == count == deployment["spec"]["replicas"]
