"""Runs an image the way a restricted pod does: read-only, unprivileged, without capabilities.

runc does it, for it is what runs in a cluster, too. Only the network is the host's, so that tests
reach what listens and what runs inside reaches their servers.
"""

import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from archives import Archive

NAMESPACES: Final = ("pid", "mount", "ipc", "uts")
DEVICES: Final = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}
MASKED: Final = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
TEMPORARY_BYTES: Final = 64 << 20


def missing() -> str | None:
    """What is missing here for containers to run, if anything."""
    if os.geteuid() != 0:
        return "containers are run by root"
    if shutil.which("runc") is None:
        return "containers are run with runc (`apt install runc`)"
    return None


def specification(
    config: Mapping[str, Any],
    rootfs: Path,
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What runc is told: the image's own program and user, and nothing else allowed.

    Arguments take the place of the image's command, as they do in a pod.
    """
    given = config["config"]
    own = [*given.get("Env", ()), *(f"{name}={value}" for name, value in (environ or {}).items())]
    user, _, group = given["User"].partition(":")
    command = given.get("Cmd", ()) if arguments is None else arguments
    nothing: Sequence[str] = ()
    kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": int(user), "gid": int(group)},
            "args": [*given["Entrypoint"], *command],
            "env": own,
            "cwd": given.get("WorkingDir") or "/",
            "capabilities": dict.fromkeys(kinds, nothing),
            "noNewPrivileges": True,
        },
        "root": {"path": str(rootfs), "readonly": True},
        "hostname": "container",
        "mounts": _mounts(),
        "linux": {
            "namespaces": [{"type": name} for name in NAMESPACES],
            "maskedPaths": MASKED,
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def _mounts() -> list[dict[str, Any]]:
    temporary = ["nosuid", "nodev", "mode=1777", f"size={TEMPORARY_BYTES}"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {**DEVICES, "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": temporary},  # noqa: S108 - the container's
    ]


@dataclass(frozen=True, slots=True)
class Container:
    """One that runs; its log is a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self, number: signal.Signals = signal.SIGTERM) -> None:
        subprocess.run(["runc", "kill", self.name, number.name], check=True, timeout=30)

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")


class Unpacked:
    """An image whose files lie in a folder, ready to be run any number of times."""

    def __init__(self, archive: Archive, folder: Path) -> None:
        self._config = archive.config
        self._folder = folder
        self._rootfs = folder / "rootfs"
        self._rootfs.mkdir(parents=True)
        archive.unpack(self._rootfs)

    def bundle(
        self, name: str, arguments: Sequence[str] | None, environ: Mapping[str, str] | None
    ) -> Path:
        told = specification(self._config, self._rootfs, arguments, environ)
        folder = self._folder / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(told), "utf-8")
        return folder

    def run(
        self, *arguments: str, entrypoint: str | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; another entrypoint where one is named."""
        folder = self.bundle(name := _name(), arguments, environ)
        if entrypoint is not None:
            told = json.loads((folder / "config.json").read_text("utf-8"))
            told["process"]["args"] = [entrypoint, *arguments]
            (folder / "config.json").write_text(json.dumps(told), "utf-8")
        command = ["runc", "run", "--bundle", str(folder), name]
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    @contextmanager
    def started(
        self, arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None
    ) -> Iterator[Container]:
        """Run a program that stays, until the end of the block at the latest."""
        folder = self.bundle(name := _name(), arguments, environ)
        log = folder / "log"
        command = ["runc", "run", "--bundle", str(folder), name]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield Container(name, process, log)
        finally:
            subprocess.run(
                ["runc", "delete", "--force", name], check=False, capture_output=True, timeout=30
            )
            process.wait(30)


def _name() -> str:
    return f"jangada-{uuid.uuid4().hex[:12]}"
