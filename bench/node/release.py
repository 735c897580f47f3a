"""A release of our chart on a node: installed, asked, upgraded and rolled back by helm."""

import base64
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
from cluster.api import Api, Object
from toolchain import ROOT

from jangada.local.process import wait_until
from node import traffic
from node.node import Node

CHART: Final = ROOT / "charts/jangada"
NAME: Final = "shop"
RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}
REGISTRY: Final = "ghcr.io/jangada"
"""Where the chart expects our images; on the node they are there already."""

VERSIONS: Final = ("0.1.0", "0.1.1")
"""What our images are tagged with: the chart's own version, and one to go to."""

IMAGES: Final = ("api.image", "workerImage", "operator.image")
READY: Final = 600.0
"""Seconds that a release may take on a busy machine; how long it took is told, not judged."""

POOL: Final = {
    "name": "default",
    "queues": ["default", "imports"],
    "slots": 1,
    "replicas": {"min": 0, "max": 3},
    "startWithin": "5s",
    "scaleDownAfter": "10s",
    "drainDeadlineSeconds": 600,
    "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
}
VALUES: Final[Mapping[str, Any]] = {"dev": {"enabled": True}, "workers": [POOL]}
WORKERS: Final = "worker-default"
PART: Final = "app.kubernetes.io/component"


class ReleaseFailed(Exception):
    """A program that people use on a release failed; with what it said."""


@dataclass(frozen=True, slots=True)
class Release:
    """One in a namespace of its own, as strict as one can be."""

    node: Node
    api: Api
    helm_program: Path
    kubectl_program: Path
    values: Path

    @property
    def namespace(self) -> str:
        return self.api.namespace

    def run(self, program: Path, *arguments: str) -> str:
        environ = os.environ | {"KUBECONFIG": str(self.node.admin), "HOME": str(self.values.parent)}
        done = subprocess.run(  # noqa: S603 - a pinned program
            [str(program), "--namespace", self.namespace, *arguments],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ReleaseFailed(f"{program.name} {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def helm(self, *arguments: str) -> str:
        return self.run(self.helm_program, *arguments)

    def kubectl(self, *arguments: str) -> str:
        return self.run(self.kubectl_program, *arguments)

    def apply(self, version: str, *, first: bool = False) -> float:
        """Install or upgrade to images of this version; answers the seconds until all is ready."""
        began = time.monotonic()
        tags = [f"--set={image}.tag={version}" for image in IMAGES]
        command = ["install" if first else "upgrade", NAME, str(CHART), f"--values={self.values}"]
        self.helm(*command, *tags, "--wait", f"--timeout={READY:.0f}s")
        self.wait_ready()
        return time.monotonic() - began

    def upgrade_api(self, version: str, *options: str) -> None:
        """Only the API, and with it the migration, to images of this version."""
        changed = ("--reuse-values", f"--set=api.image.tag={version}")
        self.helm("upgrade", NAME, str(CHART), *changed, "--wait", *options)

    def roll_back(self) -> float:
        """To the revision before; answers the seconds until all is ready."""
        began = time.monotonic()
        self.helm("rollback", NAME, "--wait", f"--timeout={READY:.0f}s")
        self.wait_ready()
        return time.monotonic() - began

    def wait_ready(self) -> None:
        """Return when the migration is done and each Deployment is what it is to be."""
        self.api.wait_for("jobs", lambda jobs: jobs and all(map(is_complete, jobs)), within=READY)
        self.api.wait_for("deployments", lambda found: all(map(is_rolled_out, found)), within=READY)

    def pods(self, component: str) -> Sequence[Object]:
        return self.api.list("pods", selector=f"{PART}={component}")

    def wait_pods(self, component: str, holds: Callable[[Sequence[Object]], bool]) -> None:
        selector = f"{PART}={component}"
        self.api.wait_for("pods", holds, selector=selector, within=READY)

    def replace(self, pod: str) -> float:
        """Delete a pod that a StatefulSet makes again; answers when it was ready again."""
        uid = self.api.get("pods", pod)["metadata"]["uid"]
        self.api.delete("pods", pod, grace=1)
        self.api.wait_for(
            "pods",
            lambda found: found and found["metadata"]["uid"] != uid and is_ready(found),
            name=pod,
            within=READY,
        )
        return time.monotonic()

    def kill(self, component: str) -> float:
        """Kill -9 what runs in each pod; answers when all of them were ready again."""
        pods = [each["metadata"]["name"] for each in self.pods(component)]
        before = {pod: restarts(self.api.get("pods", pod)) for pod in pods}

        def is_back(found: Object) -> bool:
            return restarts(found) > before[found["metadata"]["name"]] and is_ready(found)

        for pod in pods:
            found = self.api.get("pods", pod)
            (container,) = found["status"]["containerStatuses"]
            self.node.kill_container(found["spec"]["nodeName"], container["containerID"])
        for pod in pods:
            self.api.wait_for("pods", is_back, name=pod, within=READY)
        return time.monotonic()

    def wait_count(self, component: str, count: int) -> None:
        self.wait_pods(component, lambda pods: len(pods) == count)

    @contextmanager
    def scaled(self, sizes: Mapping[str, int], kind: str = "deployments") -> Iterator[None]:
        """Components of other sizes, until they are what they were again, and ready."""
        names = {part: f"{NAME}-{part}" for part in sizes}
        before = {part: self.api.get(kind, names[part])["spec"]["replicas"] for part in sizes}
        try:
            for part, size in sizes.items():
                self.api.scale(kind, names[part], size)
                self.wait_count(part, size)
            yield
        finally:
            for part, size in before.items():
                self.api.scale(kind, names[part], size)
            for part, size in before.items():
                self.wait_pods(part, partial(are_ready, size))

    @contextmanager
    def reach(self) -> Iterator[str]:
        """The URL of the API's Service, by its address in the cluster."""
        service = self.api.get("services", f"{NAME}-api")["spec"]
        with self.node.reach(service["clusterIP"], service["ports"][0]["port"]) as port:
            yield f"http://127.0.0.1:{port}"

    def secret(self, key: str) -> str:
        return base64.b64decode(self.api.get("secrets", f"{NAME}-dev")["data"][key]).decode()

    def restarts(self) -> dict[str, int]:
        """How often each pod of API, dispatcher and operator was started anew."""
        parts = ("api", "dispatcher", "operator")
        return {pod["metadata"]["name"]: restarts(pod) for part in parts for pod in self.pods(part)}

    def sql(self, statement: str, *, database: str = "jangada") -> str:
        """What its PostgreSQL says, asked inside of the pod by a superuser."""
        asked = ("--tuples-only", "--no-align", f"--dbname={database}", f"--command={statement}")
        return self.in_postgres("psql", "--username=postgres", *asked).strip()

    def in_postgres(self, *command: str) -> str:
        """What a program says, run in its PostgreSQL's pod."""
        return self.kubectl("exec", f"{NAME}-dev-postgres-0", "--", *command)

    @contextmanager
    def exactly(self, client: httpx.Client, jobs: list[str]) -> Iterator[None]:
        """When it ends, all these imports have, and each contact of theirs is there once."""
        before = self.contacts()
        yield
        found = [traffic.ended(client, job) for job in jobs]
        ends = [(each["state"], each["result"]["inserted"]) for each in found]
        assert ends == [("completed", traffic.ROWS)] * len(jobs), ends
        assert self.contacts() - before == len(jobs) * traffic.ROWS

    def contacts(self) -> int:
        return int(self.sql("SELECT count(*) FROM contacts"))

    def wait_sql(self, statement: str, answer: str) -> None:
        """Return when its PostgreSQL says that."""
        if not wait_until(lambda: self.sql(statement) == answer, READY):
            raise ReleaseFailed(f"{statement}: {self.sql(statement)}, not {answer}")


@contextmanager
def release(
    node: Node, helm: Path, kubectl: Path, values: Mapping[str, Any], *, namespace: str
) -> Iterator[Release]:
    """A place for one, which is not installed yet; its namespace goes with it."""
    with tempfile.TemporaryDirectory() as folder, node.api() as admin:
        path = Path(folder) / "values.yaml"
        path.write_text(json.dumps(values), "utf-8")
        with admin.make_namespace(namespace) as api:
            admin.patch("namespaces", namespace, {"metadata": {"labels": RESTRICTED}})
            yield Release(node, api, helm, kubectl, path)
        admin.delete("namespaces", namespace)


def is_complete(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(each["type"] == "Complete" and each["status"] == "True" for each in conditions)


def is_rolled_out(deployment: Object) -> bool:
    """All its pods are of the newest revision, and ready; those of the one before are gone."""
    status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    if status.get("observedGeneration") != deployment["metadata"]["generation"]:
        return False
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")]
    return counts == [wanted] * 3


def restarts(pod: Object) -> int:
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses", ()))


def are_ready(count: int, pods: Sequence[Object]) -> bool:
    return sum(map(is_ready, pods)) >= count


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
