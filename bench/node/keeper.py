"""Keeps the namespaces of a node and its control groups: a script of its own, the node's lifeline.

The outer half waits for the end of its lifeline, a pipe that whoever uses the node holds open; a
kill -9 lets go of it, too. The inner half is process 1 of the namespaces: when it dies, the kernel
kills whatever runs in them, and with the last of these the mounts and the network are gone. What
remains are empty control groups and the files of containers, which the outer half removes.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
HIDDEN = ("/run", "/var/lib", "/var/log", "/opt")
"""Where container programs leave things whatever one tells them; inside, these begin empty."""

PR_SET_PDEATHSIG = 1
MS_SILENT = 0x8000
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MS_REC = 1 << 14
WEIGHTS = {"cpu.shares": "8192", "cpu.weight": "800"}
"""Of all pods, in both versions of control groups: eight times the usual. On a machine of its own a
node's pods are one group beside that of everything else; here they are one beside each process that
others run, and would get as little as one of these.
"""

REMOVAL = 10.0
"""Seconds that the kernel may take to let go of a control group whose processes are gone."""


def main(arguments: Sequence[str]) -> int:
    lifeline, group, folder, *addresses = int(arguments[0]), *arguments[1:]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    make_groups(group)
    first = -1
    try:
        os.unshare(os.CLONE_NEWNS | os.CLONE_NEWNET | os.CLONE_NEWPID)
        first = os.fork()
        if not first:
            inner(addresses)
        print(first, flush=True)
        watch(lifeline, first)
    finally:
        if first:
            clean(first, group, Path(folder))
    return 0


def watch(lifeline: int, first: int) -> None:
    """Return when the lifeline ends, or the first process of the namespaces."""
    dies = os.pidfd_open(first)
    select.select([lifeline, dies], [], [])


def clean(first: int, group: str, folder: Path) -> None:
    if first > 0:
        with suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
    remove_groups(group)
    shutil.rmtree(folder, ignore_errors=True)


def inner(addresses: Sequence[str]) -> None:
    """Process 1: furnish the namespaces, and bury what dies; it dies with the outer half."""
    libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    furnish(addresses)
    print("ready", flush=True)
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        signal.sigwait({signal.SIGCHLD})


def furnish(addresses: Sequence[str]) -> None:
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    # Shared among themselves only: a kubelet wants to hand mounts on to its containers.
    mount("none", "/", "", MS_REC | MS_SHARED)
    mount("proc", "/proc", "proc")
    commands = (
        ("link", "set", "lo", "up"),
        ("link", "add", "node0", "type", "bridge"),
        *(("addr", "add", f"{address}/32", "dev", "node0") for address in addresses),
        ("link", "set", "node0", "up"),
        # Nothing is behind it, but a Service's address must have a way out to be rewritten.
        ("route", "add", "default", "dev", "node0", "src", addresses[0]),
    )
    for command in commands:
        subprocess.run(["ip", *command], check=True)  # noqa: S603, S607 - constant but the addresses
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", "ascii")
    for place in HIDDEN:
        if Path(place).is_dir():
            mount("node", place, "tmpfs")


def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0) -> None:
    names = (source.encode(), target.encode(), kind.encode() or None)
    if libc().mount(*names, ctypes.c_ulong(flags | MS_SILENT), None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def controllers() -> Iterator[Path]:
    """Where control groups are made: one place, or one for each controller of the first version."""
    if (GROUPS / "cgroup.controllers").exists():
        yield GROUPS
        return
    for place in GROUPS.iterdir():
        if not place.is_symlink() and (place / "cgroup.procs").exists():
            yield place


def make_groups(group: str) -> None:
    for place in controllers():
        (place / group).mkdir()
        for name, weight in WEIGHTS.items():
            if (place / group / name).exists():
                (place / group / name).write_text(weight, "ascii")
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (place / name).exists() and not (place / "cgroup.controllers").exists():
                (place / group / name).write_bytes((place / name).read_bytes())


def remove_groups(group: str) -> None:
    """They are empty by now, or will be in a moment."""
    end = time.monotonic() + REMOVAL
    for place in controllers():
        for folder, _, _ in os.walk(place / group, topdown=False):
            remove_group(folder, end)


def remove_group(folder: str, end: float) -> None:
    while True:
        try:
            os.rmdir(folder)  # noqa: PTH106 - os.walk gives strings
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
