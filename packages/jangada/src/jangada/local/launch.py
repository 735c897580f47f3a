"""Become another program, on a leash: a script that a server is executed in place of.

It records the identity of the process first, so that a runner which is killed at any moment can
find it again; it takes on the credentials that the program needs; it arranges that the kernel
signals the program when its parent dies; then it executes the program. The process id stays the
same throughout.
"""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522


def identity(pid: int) -> str | None:
    """What tells this process from a later one with the same id; None when it does not run."""
    if sys.platform != "linux":
        answer = subprocess.run(  # noqa: S603 - constant program, number argument
            ["/bin/ps", "-o", "lstart=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
        return answer.stdout.strip() or None
    try:
        # The name of the program, in parentheses, may hold spaces: count from behind it.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    (
        state,
        *_,
    ) = fields.rpartition(")")[2].split()
    started = fields.rpartition(")")[2].split()[19]
    return None if state in "ZX" else f"{boot}:{started}"


def write_record(path: str) -> None:
    """Leave pid and identity where the next runner looks for them, whole or not at all."""
    pid = os.getpid()
    draft = Path(f"{path}.{pid}")
    draft.write_text(json.dumps({"pid": pid, "identity": identity(pid)}), encoding="utf-8")
    draft.replace(path)


def enter_namespace(uid: int, gid: int) -> None:
    """Appear as `uid` to ourselves while the kernel still sees the owner of our files."""
    outside_uid, outside_gid = os.geteuid(), os.getegid()
    os.unshare(os.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{uid} {outside_uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{gid} {outside_gid} 1", encoding="ascii")


def become(uid: int, gid: int) -> None:
    """Become another account that, where allowed, still reaches files below private folders.

    PostgreSQL asks access(2) whether it reaches its programs. That reckons with capabilities of
    an account that isn't root only under `SECBIT_NO_SETUID_FIXUP` (capabilities(7)).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    bits = libc.prctl(PR_GET_SECUREBITS, 0, 0, 0, 0)
    libc.prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    bit = 1 << CAP_DAC_OVERRIDE
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    # Not granted is no error yet: the program may reach its files without it.
    if libc.capset(header, sets) == 0:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def follow(parent: int, signal: int) -> None:
    """Be signalled when the parent dies. Comes after every change of credentials: those undo it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the runner is gone")


def prepare(spec: dict[str, Any]) -> None:
    os.umask(0o077)
    if spec["record"]:
        write_record(spec["record"])
    if spec["credentials"] == "namespace":
        enter_namespace(spec["uid"], spec["gid"])
    elif spec["credentials"] == "account":
        become(spec["uid"], spec["gid"])
    if spec["folder"]:
        os.chdir(spec["folder"])
    follow(spec["parent"], spec["signal"])


def main() -> None:
    try:
        prepare(json.loads(sys.argv[1]))
        os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the runner names the program
    except OSError as error:
        sys.exit(f"{sys.argv[2]}: {error}")


if __name__ == "__main__":
    main()
