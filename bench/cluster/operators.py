"""Operators of a bed: real processes with the rights of their role, which a test may kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from chaos.forkserver import Launch, start

from cluster.api import Api
from cluster.bed import Bed
from cluster.kubelet import image
from jangada.local.logs import open_log
from jangada.local.process import Command

NAMESPACE: Final = "jangada-system"
ACCOUNT: Final = "jangada-operator"
LEASE: Final = "jangada-operator"


def install(bed: Bed, programs: Path) -> None:
    """As the guide says: `jangada-operator manifests | kubectl apply -f -`."""
    with bed.api() as api:
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    run = [sys.executable, "-m", "jangada_operator.cli", "manifests"]
    manifests = subprocess.run(run, capture_output=True, check=True)  # noqa: S603 - our own program
    subprocess.run(  # noqa: S603 - as above
        [str(programs / "kubectl"), "apply", "--server-side", "-f", "-"],
        input=manifests.stdout,
        env={**os.environ, "KUBECONFIG": str(bed.admin)},
        check=True,
        capture_output=True,
    )


@dataclass(slots=True)
class Operator:
    """One operator process."""

    child: Any
    log: Path

    def metrics(self) -> str:
        """What it tells Prometheus; it listens on a port of its own choice."""
        port = self.log.read_text("utf-8").partition("listens on port ")[2].split()[0]
        return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text

    def kill(self) -> None:
        """As a node that loses power."""
        self.child.send(signal.SIGKILL)
        self.child.ended.result()


@contextmanager
def operator(
    bed: Bed, folder: Path, number: int = 0, launch: Launch = start, *, lease: str = LEASE
) -> Iterator[Operator]:
    """Run one; it ends in order afterwards. With a lease of its own it is somebody else's."""
    log = folder / f"operator-{number}.log"
    command = Command(
        argv=[
            *(sys.executable, "-m", "jangada_operator.cli", "run", "--port", "0"),
            *("--host", "127.0.0.1", "--lease-namespace", NAMESPACE, "--lease-name", lease),
        ],
        environ={**image(), "KUBECONFIG": str(bed.account(NAMESPACE, ACCOUNT))},
        folder=folder,
        death_signal=signal.SIGKILL,
    )
    with open_log(log) as output:
        running = Operator(launch(command, output.fileno(), ()), log)
    try:
        yield running
    finally:
        running.child.send(signal.SIGTERM)
        running.child.ended.result()


def holder(api: Api) -> str:
    """Who leads."""
    lease = api.find("leases", LEASE, namespace=NAMESPACE)
    return "" if lease is None else str(lease["spec"].get("holderIdentity") or "")
