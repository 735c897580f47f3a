"""Processes that keep every processor busy."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def starvation(each: int) -> Iterator[None]:
    """So many busy processes for each processor: whoever else wants to run waits for as many."""
    command = [sys.executable, "-S", "-c", "while True: pass"]
    count = each * (os.cpu_count() or 1)
    busy = [subprocess.Popen(command) for _ in range(count)]  # noqa: S603 - our own
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()
