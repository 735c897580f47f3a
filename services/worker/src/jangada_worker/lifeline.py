"""A child must not outlive its parent: nobody would beat for it, and its jobs start elsewhere."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, whatever this process is doing.

    Linux only; elsewhere the end of the link to the parent does it, once the event loop turns.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("The parent is gone already.")


def name_process(name: str) -> None:
    """What `top`, `pstree` and `ps -o comm` call this process: at most 15 bytes. Linux only."""
    _prctl(_PR_SET_NAME, name.encode())


def _prctl(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(option, value) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
