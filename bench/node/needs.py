"""What a real node takes of a machine, and what of it is missing here."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from node.keeper import GROUPS, controllers

PROGRAMS: Final = {
    **dict.fromkeys(("containerd", "containerd-shim-runc-v2", "ctr"), "containerd"),
    "runc": "runc",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    # The images of the stand-ins are made with these.
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
}
"""And the package of Debian's that has them."""

PLUGINS: Final = ("ptp", "host-local", "loopback")
PLACES: Final = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
SYSTEM: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where programs for root are, which aren't on every PATH."""


def path() -> str:
    return os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM))


def program(name: str) -> Path:
    """A program of the machine; `missing` has said before whether it is there."""
    found = shutil.which(name, path=path())
    if found is None:
        raise FileNotFoundError(name)
    return Path(found)


def plugins() -> Path | None:
    """The folder that has all plugins for the network of pods."""
    has_all = (place for place in PLACES if all((place / name).exists() for name in PLUGINS))
    return next(has_all, None)


def missing() -> Sequence[str]:
    """All that is missing, in the words of whoever is to mend it."""
    if sys.platform != "linux":
        return ["a Linux machine"]
    if os.geteuid():
        return ["root: namespaces, mounts and control groups are made"]
    return [*_programs(), *_kernel()]


def _programs() -> Iterator[str]:
    packages = {
        package for name, package in PROGRAMS.items() if shutil.which(name, path=path()) is None
    }
    if plugins() is None:
        packages.add("containernetworking-plugins")
    if packages:
        yield f"`apt-get install {' '.join(sorted(packages))}`"


def _kernel() -> Iterator[str]:
    if "\toverlay\n" not in Path("/proc/filesystems").read_text("ascii"):
        yield "a kernel with overlayfs"
    if not _has_memory_group():
        yield f"control groups with the memory controller under {GROUPS}"
    elif not all(os.access(place, os.W_OK) for place in controllers()):
        yield f"control groups that can be written: {GROUPS} is read-only"
    kinds = ["--mount", "--net", "--pid", "--fork"]
    if subprocess.run(["unshare", *kinds, "true"], check=False, capture_output=True).returncode:  # noqa: S603, S607 - constant
        yield "a kernel that lets root make namespaces"


def _has_memory_group() -> bool:
    listed = GROUPS / "cgroup.controllers"
    if listed.exists():
        return "memory" in listed.read_text("ascii").split()
    return (GROUPS / "memory/cgroup.procs").exists()
