"""The examples of WorkerPools, as an API server that knows the definition takes them."""

import os
import subprocess
from pathlib import Path

import pytest
from cluster.bed import Bed
from toolchain import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.smoke]

EXAMPLES = ROOT / "k8s/examples"


def dry_run(bed: Bed, programs: Path, text: str) -> subprocess.CompletedProcess[str]:
    strict = ["apply", "--dry-run=server", "--validate=strict", "--output=name", "-f", "-"]
    return subprocess.run(  # noqa: S603 - a pinned program
        [str(programs / "kubectl"), *strict],
        env={**os.environ, "KUBECONFIG": str(bed.admin)},
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir()))
def test_an_example_would_be_taken(installed: Bed, programs: Path, name: str) -> None:
    done = dry_run(installed, programs, (EXAMPLES / name).read_text("utf-8"))
    assert done.returncode == 0, done.stderr
    assert "workerpool.jangada.dev/" in done.stdout


def test_one_that_breaks_a_rule_would_not(installed: Bed, programs: Path) -> None:
    text = (EXAMPLES / "smallest.yaml").read_text("utf-8")
    done = dry_run(installed, programs, text.replace("{max: 10}", "{min: 11, max: 10}"))
    assert done.returncode != 0
    assert "min must not be above max" in done.stderr
