"""One container of ours, as strictly held as a namespace can ask for."""

import secrets
from collections.abc import Iterator

import pytest
from cluster.api import Api
from node.node import Node
from node.release import REGISTRY, VERSIONS

pytestmark = [pytest.mark.pods, pytest.mark.timeout(900)]

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture
def place(node: Node) -> Iterator[Api]:
    name = f"smoke-{secrets.token_hex(3)}"
    with node.api() as admin, admin.make_namespace(name) as api:
        admin.patch("namespaces", name, {"metadata": {"labels": RESTRICTED}})
        yield api
        admin.delete("namespaces", name)


def test_a_pod_runs_restricted(node: Node, place: Api) -> None:
    confined = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "told",
        "image": f"{REGISTRY}/api:{VERSIONS[0]}",
        "command": ["jangada", "--version"],
        "securityContext": confined,
    }
    user = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "securityContext": user, "containers": [container]}
    place.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "told"}, "spec": spec})
    place.wait_for(
        "pods", lambda pod: pod and pod["status"]["phase"] == "Succeeded", name="told", within=120
    )
