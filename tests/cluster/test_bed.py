"""The control plane comes and goes as a whole, and its parts are the real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from chaos.harness import BENCH
from cluster.api import Api, ApiError, Object
from cluster.bed import Bed, BedFailed
from cluster.field import Field
from cluster.workers import deployment

from jangada.local.process import processes_in, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(300)]
PATIENCE = 60
COST = "controller.kubernetes.io/pod-deletion-cost"
ORPHAN = """
import json, os, sys
from pathlib import Path
from cluster.bed import Bed
with Bed(Path(sys.argv[1]), Path(sys.argv[2])) as bed:
    print(json.dumps(list(bed.pids.values())), flush=True)
    os.kill(os.getpid(), 9)
"""
READER = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}


def idle(name: str, replicas: int) -> Object:
    """A Deployment whose pods kwok says to be running."""
    return deployment(name, replicas=replicas, environ={}, command=["true"], is_process=False)


@pytest.mark.smoke
def test_a_bed_leaves_no_process(programs: Path, tmp_path: Path) -> None:
    with Bed(tmp_path / "bed", programs) as bed:
        assert len(list(processes_in(bed.folder))) == len(bed.pids)
        with bed.api() as api:
            api.apply(idle("web", 3))
            api.wait_for("deployments", lambda web: is_available(web, 3), name="web")
    assert list(processes_in(tmp_path / "bed")) == []


def test_a_bed_dies_with_whoever_started_it(programs: Path, tmp_path: Path) -> None:
    path = os.pathsep.join((str(BENCH), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-c", ORPHAN, str(tmp_path / "bed"), str(programs)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    pids = json.loads(done.stdout)
    assert wait_until(lambda: not any(map(psutil.pid_exists, pids)), PATIENCE)


def test_what_has_died_is_told_with_its_last_words(programs: Path, tmp_path: Path) -> None:
    broken = tmp_path / "programs"
    broken.mkdir()
    for program in programs.iterdir():
        (broken / program.name).symlink_to(program)
    (broken / "etcd").unlink()
    (broken / "etcd").write_text("#!/bin/sh\necho this etcd is broken\nexit 1\n")
    (broken / "etcd").chmod(0o755)
    bed = Bed(tmp_path / "bed", broken)
    with pytest.raises(BedFailed, match="this etcd is broken"), bed:
        pass
    assert list(processes_in(tmp_path / "bed")) == []


@pytest.mark.smoke
async def test_deletion_costs_choose_who_goes(place: Field) -> None:
    """By the real ReplicaSet controller, not by ours."""
    place.api.apply(idle("web", 10))
    pods = place.wait_ready("web", 10)
    names = sorted(pod["metadata"]["name"] for pod in pods)
    for name in (cheap := names[::3]):
        place.api.patch("pods", name, {"metadata": {"annotations": {COST: "-100"}}})
    place.api.scale("deployments", "web", 10 - len(cheap))
    left = place.wait_ready("web", 10 - len(cheap))
    assert {pod["metadata"]["name"] for pod in left} == set(names) - set(cheap)


async def test_a_service_account_may_do_what_its_role_says(place: Field) -> None:
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader"}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": place.namespace}
    place.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}})
    place.api.create({**rbac, "kind": "Role", "rules": [READER]})
    place.api.create({**rbac, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]})
    with Api(place.bed.account(place.namespace, "reader")) as reader:
        assert reader.list("pods") == []
        with pytest.raises(ApiError, match="cannot patch") as refused:
            reader.secret("own", key="value")
    assert refused.value.status == 403


def is_available(deployment: dict[str, dict[str, int]] | None, count: int) -> bool:
    return deployment is not None and deployment["status"].get("availableReplicas") == count
