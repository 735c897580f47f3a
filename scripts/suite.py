"""Runs the tests; with `--branches`, holds the branch coverage of the libraries at 90 % instead.

Measuring makes tests and the processes that they start take twice as long, so it is a run of its
own, of those tests that reach the libraries. `--cluster smoke` and `--cluster all` run the tests
that need a Kubernetes control plane, and build that when it isn't there; nothing else runs them.
`--cluster built` is the first where it has been built, and says so where it hasn't. `--images`
builds the images of the services and runs the tests that look into them; `--pods` does so, too, and
runs them on a real node.
With other arguments this is plain pytest.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import images
import tools
from toolchain import ROOT

BIN = Path(sys.executable).parent
GATE = 90.0
# Two more than there are cores: for some of the time a test waits for what it started.
PARALLEL = ["-n", str(min((os.cpu_count() or 1) + 2, 8))]
ELSEWHERE = ["--ignore", "tests/test_conventions.py"]
"""`make check` runs them."""
NO_CLUSTER = ["-m", "not cluster and not images and not pods"]
"""`make e2e`, `make images` and `make e2e-pods` run them."""
IMAGES = ["tests/images", "-m", "images", "-n", "2"]
PODS = ["tests/pods", "-m", "pods", "-s"]
CLUSTER = ["tests/cluster", "-n", "2"]
SMOKE = ["-m", "cluster and smoke"]
CHOSEN = {"smoke": SMOKE, "built": SMOKE, "all": ["-m", "cluster"]}
NOT_BUILT = """
*** NOT RUN: the tests on a Kubernetes control plane, which isn't built here.
*** `make e2e-smoke` builds it, within half an hour and once for all checkouts, and runs them.
"""
NO_NODE = 77
"""With this `bench/node` says that there can't be a node here, and has said why."""
QUIET = ["-q", "--durations", "5", "--durations-min", "2"]
SHOWN = 10
MEASURED = ["packages", "tests"]
MEMORY = Path("/dev/shm")  # noqa: S108 - what is made in it is made as in any temporary folder
ENOUGH_MEMORY = 4 << 30


def temporary() -> dict[str, str]:
    """Temporary files in memory, where there is plenty.

    The tests make and remove some 2,000 databases of 400 files each, which nobody wants flushed.
    """
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ENOUGH_MEMORY
    return {"TMPDIR": str(MEMORY)} if has_room and os.access(MEMORY, os.W_OK) else {}


def run(program: str, *arguments: str, data: Path | None = None) -> int:
    """Run one of our tools with nothing to read: a test that asks the terminal should fail."""
    command = [str(BIN / program), *arguments]
    measuring = {"COVERAGE_FILE": str(data)} if data else {}
    # Where a machine sets it, each process and program of a test compiles what it imports anew.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **temporary(), **measuring}
    return subprocess.run(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=False
    ).returncode


def run_tests(*arguments: str, data: Path | None = None) -> int:
    """Run tests whose files go when all have passed: memory is no place to leave gigabytes in."""
    folder = Path(tempfile.mkdtemp(prefix="jg-", dir=temporary().get("TMPDIR")))
    failed = run("pytest", *arguments, f"--basetemp={folder}", data=data)
    if failed:
        print(f"What the tests wrote is in {folder}.")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return failed


def measured(data: Path) -> Mapping[str, Any]:
    """What coverage knows of each file, by its path from the root."""
    report = data.with_name("coverage.json")
    if run("coverage", "json", "--quiet", "-o", str(report), data=data):
        raise SystemExit("coverage has nothing to report")
    files: Mapping[str, Any] = json.loads(report.read_text("utf-8"))["files"]
    return {os.path.relpath(ROOT / name, ROOT): entry["summary"] for name, entry in files.items()}


def branches(summaries: list[Mapping[str, Any]]) -> float:
    """The percentage of branches that some test took."""
    there: int = sum(summary["num_branches"] for summary in summaries)
    taken: int = sum(summary["covered_branches"] for summary in summaries)
    return 100.0 * taken / max(there, 1)


def report(files: Mapping[str, Any]) -> Iterator[str]:
    """A line per library, then their files that miss the most."""
    yield "Branch coverage"
    for folder in sorted({"/".join(name.split("/")[:2]) for name in files if is_library(name)}):
        inside = [summary for name, summary in files.items() if name.startswith(f"{folder}/")]
        yield f"  {folder:<20} {branches(inside):5.1f} %"
    missing = {name: each["missing_branches"] for name, each in files.items() if is_library(name)}
    for name in sorted(missing, key=lambda name: -missing[name])[:SHOWN]:
        yield f"    {missing[name]:3} branches untaken in {name}"


def is_library(name: str) -> bool:
    return name.startswith("packages/")


def gate(files: Mapping[str, Any]) -> int:
    reached = branches([summary for name, summary in files.items() if is_library(name)])
    verdict = "held" if reached >= GATE else "NOT held"
    print(f"packages/: {reached:.1f} % of branches; the gate of {GATE:.0f} % is {verdict}.")
    return 0 if reached >= GATE else 1


def measure() -> int:
    with tempfile.TemporaryDirectory(prefix="jangada-coverage-") as folder:
        # Some tests run the platform as another user, whose processes write what they covered, too.
        Path(folder).chmod(0o1777)
        data = Path(folder) / "data"
        failed = run_tests(
            *MEASURED, *PARALLEL, *QUIET, *NO_CLUSTER, "--cov", "--cov-report=", data=data
        )
        files = measured(data)
    print("\n".join(report(files)))
    return failed or gate(files)


def prepare_cluster(choice: str) -> int:
    """Build the control plane, but for the choice that takes it as it is, and says what lacks."""
    if choice != "built":
        return tools.main([tools.CONTROL.name])
    if tools.find(tools.CONTROL) is None:
        print(NOT_BUILT, file=sys.stderr)
    return 0


def run_on_cluster(choice: str, arguments: list[str]) -> int:
    """Where it isn't built each test skips and says so, so that the summary counts them."""
    failed = prepare_cluster(choice)
    return failed or run_tests(*CLUSTER, *QUIET, *CHOSEN[choice], *arguments)


def run_on_images(arguments: list[str]) -> int:
    return images.main(arguments) or run_tests(*IMAGES, *QUIET)


def run_on_node(arguments: list[str]) -> int:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((f"{ROOT}/scripts", f"{ROOT}/bench"))}
    made_ready = subprocess.run([sys.executable, "-m", "node"], cwd=ROOT, env=env, check=False)
    if made_ready.returncode:
        return 0 if made_ready.returncode == NO_NODE else made_ready.returncode
    return run_tests(*PODS, *QUIET, *arguments)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--branches"]:
            return measure()
        case ["--cluster", choice, *rest]:
            return run_on_cluster(choice, rest)
        case ["--images", *rest]:
            return run_on_images(rest)
        case ["--pods", *rest]:
            return run_on_node(rest)
        case []:
            return run_tests(*PARALLEL, *QUIET, *ELSEWHERE, *NO_CLUSTER)
        case _:
            return run_tests(*arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
