"""When pods are ready: by their probe, late, or because a test says so."""

import pytest
from cluster.api import Object
from cluster.containers import START_DELAY
from cluster.field import Field, is_ready

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(300)]
SERVER = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        is_well = os.path.exists(os.environ["CHAOS_FOLDER"] + "/" + os.environ["HOSTNAME"])
        self.send_response(200 if is_well else 503)
        self.end_headers()
HTTPServer((os.environ["POD_IP"], 8080), Answer).serve_forever()
"""
PROBE = {"httpGet": {"path": "/", "port": "health"}, "periodSeconds": 1, "failureThreshold": 1}
CONTAINER = {"ports": [{"name": "health", "containerPort": 8080}], "readinessProbe": PROBE}
COMMAND = ["python", "-c", SERVER]
FOREVER = {START_DELAY: "86400"}


def count_ready(place: Field, count: int) -> list[Object]:
    found: list[Object] = place.api.wait_for(
        "pods", lambda pods: len(ready := [*filter(is_ready, pods)]) == count and (ready or [{}])
    )
    return found


async def test_readiness_follows_the_probe_of_each_pod(place: Field) -> None:
    """Several listen on one port, each on its own address."""
    place.deploy("server", replicas=2, command=COMMAND, container=CONTAINER)
    pods = place.api.wait_for("pods", are_running, selector="app=server")
    assert not any(map(is_ready, pods))
    for pod in pods:
        place.open_gate(pod["metadata"]["name"])
    first, second = place.wait_ready("server", 2)
    assert first["status"]["podIP"] != second["status"]["podIP"]
    (place.ledger.folder / first["metadata"]["name"]).unlink()
    (left,) = count_ready(place, 1)
    assert left["metadata"]["name"] == second["metadata"]["name"]


async def test_a_test_may_say_whether_a_pod_is_ready(place: Field) -> None:
    place.deploy("worker", replicas=1)
    (pod,) = place.wait_ready("worker", 1)
    place.kubelet.force_ready(pod, False)
    count_ready(place, 0)
    place.kubelet.force_ready(pod, None)
    place.wait_ready("worker", 1)


async def test_a_pod_may_be_slow_to_start(place: Field) -> None:
    place.deploy("late", replicas=1, annotations=FOREVER)
    (pod,) = place.api.wait_for("pods", are_pending)
    assert not place.kubelet.running(place.namespace)
    place.api.scale("deployments", "late", 0)
    place.api.wait_for("pods", lambda pods: not pods)
    assert list(place.kubelet.exits(place.namespace)) == []
    assert pod["status"]["phase"] == "Pending"


def are_running(pods: list[Object]) -> list[Object]:
    return pods if len(pods) > 1 and all(has_phase(pod, "Running") for pod in pods) else []


def are_pending(pods: list[Object]) -> list[Object]:
    """Those that the kubelet has taken, and not started."""
    return [pod for pod in pods if has_phase(pod, "Pending") and "podIP" in pod["status"]]


def has_phase(pod: Object, phase: str) -> bool:
    return bool(pod["status"].get("phase") == phase)
