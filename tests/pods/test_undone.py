"""What a node leaves on the machine when whoever used it is killed: nothing but its logs."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import tools
from node.keeper import controllers

from jangada.local.process import wait_until

pytestmark = [pytest.mark.pods, pytest.mark.timeout(600)]

PROGRAM = """
import json, sys
from pathlib import Path
from node.node import Node

with Node(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])) as node:
    print(json.dumps({"group": node.group, "pids": [*node.pids.values()]}), flush=True)
    sys.stdin.read()
"""
LONG = 120.0


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="jangada-node-", dir="/var/tmp") as folder:
        yield Path(folder) / "bed"


def test_a_kill_leaves_nothing(machine: None, folder: Path) -> None:
    programs, binaries = tools.find(tools.CONTROL), tools.find(tools.NODE)
    if programs is None or binaries is None:
        pytest.skip("NO REAL PODS: `make e2e-pods` builds what is missing")
    rules = subprocess.run(["ip", "route"], capture_output=True, check=True).stdout  # noqa: S607 - as on the PATH
    user = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM, str(folder), str(programs), str(binaries)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with user:
        assert user.stdout is not None
        told = json.loads(user.stdout.readline())
        assert [place for place in controllers() if (place / told["group"]).is_dir()]
        user.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not any(map(psutil.pid_exists, told["pids"])), LONG)
    assert [place for place in controllers() if (place / told["group"]).exists()] == []
    assert str(folder) not in Path("/proc/self/mounts").read_text("utf-8")
    assert not (folder / "node").exists()
    after = subprocess.run(["ip", "route"], capture_output=True, check=True).stdout  # noqa: S607 - as above
    assert after == rules
