"""A Deployment of real workers: the application of `chaos` on leased queues, under `taskiq worker`.

What its jobs do they write to a ledger; so is known what a pod held when it was asked to end.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from chaos.columns import FAST
from chaos.ledger import write

from cluster.api import Object
from cluster.containers import PROCESS

FOLDER: Final = "CHAOS_FOLDER"
SECRET: Final = "valkey"  # noqa: S105 - the name of one
KEY: Final = "url"
OVER: Final = ("end", "cancelled", "failed")
APP: Final = "app"


def deployment(
    name: str,
    *,
    replicas: int,
    environ: Mapping[str, str],
    command: Sequence[str],
    is_process: bool = True,
    grace: int = 30,
    container: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    """Of processes with these variables, beside their pod's identity and the Valkey's Secret.

    Where it is of no processes, its pods only seem to run: hundreds of them cost nothing.
    """
    labels = {APP: name, **({PROCESS: "true"} if is_process else {})}
    main = {
        "name": "worker",
        "image": "example.invalid/worker:1",
        "command": [*command],
        "env": [
            field("JANGADA_WORKER__POD_UID", "metadata.uid"),
            field("POD_NAME", "metadata.name"),
            field("POD_IP", "status.podIP"),
            {"name": "CHAOS_URL", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": KEY}}},
            *({"name": name, "value": value} for name, value in environ.items()),
        ],
        **(container or {}),
    }
    template = {
        "metadata": {"labels": labels, "annotations": dict(annotations or {})},
        "spec": {"terminationGracePeriodSeconds": grace, "containers": [main]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {APP: name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {APP: name}},
            "template": template,
        },
    }


def field(name: str, path: str) -> Object:
    """A variable from the downward API."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def taskiq_worker(*, slots: int = 1) -> list[str]:
    """The command of a worker with our receiver, which takes so many jobs at once."""
    how = ["--workers", "1", "--max-async-tasks", str(slots), *FAST.arguments]
    return ["taskiq", "worker", "chaos.application:build", *how]


def application(ledger: Path, queue: str, **options: Any) -> dict[str, str]:  # noqa: ANN401 - the broker's
    """The variables of the application: where it writes, and what it tells its broker."""
    told = {"queue_name": queue, **options}
    return {FOLDER: str(ledger), "CHAOS_BROKER": FAST.broker, "CHAOS_OPTIONS": json.dumps(told)}


def folder_of(pod: Object) -> str:
    """Where the jobs of this pod write; empty where they don't."""
    entries = pod["spec"]["containers"][0].get("env", ())
    found = (entry.get("value", "") for entry in entries if entry["name"] == FOLDER)
    return next(found, "")


class LedgerWitness:
    """Reads in the ledger what the processes of a pod do, and writes there what is done to them."""

    def held(self, pod: Object, pids: Sequence[int]) -> int | None:
        """Jobs that they have begun and not ended."""
        if not (folder := folder_of(pod)):
            return None
        return sum(_begun(Path(folder) / f"ledger-{pid}") for pid in pids)

    def killing(self, pod: Object, pids: Sequence[int]) -> None:
        self._write(pod, "killed", pids)

    def ended(self, pod: Object, pids: Sequence[int]) -> None:
        self._write(pod, "gone", pids)

    @staticmethod
    def _write(pod: Object, what: str, pids: Sequence[int]) -> None:
        """A test may have taken its ledger away by now."""
        if (folder := folder_of(pod)) and os.path.isdir(folder):  # noqa: PTH112 - shorter
            for pid in pids:
                write(folder, what, "-", pid=pid)


def _begun(file: Path) -> int:
    begun = 0
    with suppress(FileNotFoundError):
        for line in file.read_text("utf-8").splitlines():
            what = line.partition(" ")[0]
            begun += (what == "start") - (what in OVER)
    return begun
