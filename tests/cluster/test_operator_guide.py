"""The guide of the operator, as a newcomer goes through it: what it writes down runs as it is."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from cluster.bed import Bed
from cluster.containers import PROCESS
from cluster.field import Field
from cluster.operators import operator
from cluster.pools import SLOW, wait_condition, wait_told
from toolchain import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(600)]

GUIDES: Final = ROOT / "docs/guides"
MOST: Final = 3
"""Replicas: the guide's twenty are twenty processes here."""


@pytest.fixture(scope="module")
def running(installed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with operator(installed, tmp_path_factory.mktemp("operator")):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the guide's two files."""
    (app,) = blocks("taskiq.md", "python")
    (send,) = blocks("operator.md", "python")
    (tmp_path / "app.py").write_text(app)
    (tmp_path / "send.py").write_text(send)
    return tmp_path


def blocks(guide: str, language: str) -> list[str]:
    text = (GUIDES / guide).read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def of_the_guide(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its Deployment and its pool, as processes that find the application."""
    (text,) = (each for each in blocks("operator.md", "yaml") if "kind: WorkerPool" in each)
    deployment, pool = yaml.safe_load_all(text)
    template = deployment["spec"]["template"]
    template["metadata"]["labels"][PROCESS] = "true"
    env = template["spec"]["containers"][0]["env"]
    env.append({"name": "PYTHONPATH", "value": str(folder)})
    pool["spec"]["replicas"]["max"] = MOST
    return deployment, pool


def run(*argv: str, folder: Path, **environ: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own program, and the guide's
        [sys.executable, *argv],
        cwd=folder,
        env={**os.environ, **environ},
        check=True,
        capture_output=True,
        text=True,
        timeout=SLOW,
    )
    return done.stdout


async def test_a_newcomer_s_pool_follows_what_the_sender_sends(
    place: Field, running: None, queue_server: str, folder: Path
) -> None:
    for manifest in of_the_guide(folder):
        place.api.apply(manifest)
    wait_condition(place.api, "adding", "Ready", "True", "Managed")

    run("send.py", "2000", folder=folder, BROKER_URL=queue_server)
    assert "others could be there" in wait_told(place, "ScaledUp")
    place.api.wait_for(
        "workerpools",
        lambda one: one["status"]["desiredReplicas"] > 1 and one["status"]["backlog"] == 0,
        name="adding",
        within=SLOW,
    )
    place.wait_ready("worker", MOST)

    explain = ("-m", "jangada_operator.cli", "explain", "adding", "-n", place.namespace)
    told = run(*explain, folder=folder, KUBECONFIG=str(place.bed.admin))
    assert "adding scales Deployment worker" in told
    assert "Backlog: An estimated " in told
    changes = ("--dry-run", "objective.startWithin=1s", "--dry-run", "replicas.max=50")
    told = run(*explain, *changes, folder=folder, KUBECONFIG=str(place.bed.admin))
    assert "With the changed spec, by the figures of " in told


def test_a_worker_that_can_t_be_imported_ends_its_pod(folder: Path) -> None:
    (folder / "app.py").write_text("import nothing_like_it\n")
    deployment, _ = of_the_guide(folder)
    program, *arguments = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    script = Path(sys.executable).with_name(program)
    with pytest.raises(subprocess.CalledProcessError, match="exit status 255") as ended:
        run(str(script), *arguments, folder=folder)
    assert "No module named 'nothing_like_it'" in ended.value.stderr
