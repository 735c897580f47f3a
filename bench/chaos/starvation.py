"""Processes that keep every processor busy."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

EACH: Final = 10
"""Busy processes per processor: whoever else wants to run waits for that many."""


@contextmanager
def starvation() -> Iterator[None]:
    """Ten times as many busy processes as there are processors, while the block runs."""
    command = [sys.executable, "-S", "-c", "while True: pass"]
    count = EACH * (os.cpu_count() or 1)
    busy = [subprocess.Popen(command) for _ in range(count)]  # noqa: S603 - our own
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()
