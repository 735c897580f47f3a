"""What `.github/` has GitHub run: it is understood, it is there, and it may do little."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from toolchain import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
PINNED = re.compile(r"uses: [\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def jobs() -> list[Any]:
    found = [yaml.safe_load(each.read_text("utf-8"))["jobs"] for each in WORKFLOWS]
    return [job for each in found for job in each.values()]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_it_is_a_workflow_with_few_rights(workflow: Path) -> None:
    check = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
    ]
    done = subprocess.run([*check, workflow], capture_output=True, text=True, check=False)  # noqa: S603 - a tool of ours
    assert done.returncode == 0, done.stdout
    assert yaml.safe_load(workflow.read_text("utf-8"))["permissions"] == {"contents": "read"}


def test_what_others_wrote_is_pinned() -> None:
    """A tag can be moved to something else; the comment says what the digest was."""
    lines = [line for each in WORKFLOWS for line in each.read_text("utf-8").splitlines()]
    used = [line.strip().removeprefix("- ") for line in lines if "uses:" in line]
    assert used
    assert [line for line in used if PINNED.fullmatch(line) is None] == []


def test_what_is_run_is_there() -> None:
    targets = set(
        re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    )
    commands = [step["run"] for job in jobs() for step in job["steps"] if "run" in step]
    made = {each.split()[1] for each in commands if each.startswith("make ")}
    assert made
    assert made <= targets
    assert ".ci/run" in commands


def test_every_job_ends_by_itself() -> None:
    assert all(job["timeout-minutes"] <= 120 for job in jobs())
