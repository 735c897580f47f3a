"""Runs every measurement, or those that are named: `run.py uploads --runs 3`.

All run, also after one has failed; the exit code is 1 when a promise isn't held.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = ("uploads", "imports", "queues")


def main(arguments: list[str]) -> int:
    named = [argument for argument in arguments if argument in PROGRAMS]
    options = [argument for argument in arguments if argument not in PROGRAMS]
    codes = [_run(name, options) for name in named or PROGRAMS]
    return max(codes)


def _run(name: str, options: list[str]) -> int:
    command = [sys.executable, "-m", name, *options]
    return subprocess.run(command, cwd=HERE, check=False).returncode  # noqa: S603 - our own program


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
