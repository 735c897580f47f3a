"""Runs every measurement, or those that are named: `run.py uploads --runs 3`.

All run, also after one has failed; the exit code is 1 when a promise isn't held. `chaos` and
`queues` take an hour each, `autoscalers` half of one, and they and `scaling` have options of their
own, so they run only when they are named.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = HERE.parent / "scripts"
PROGRAMS = ("uploads", "imports", "enqueue", "turns")
NAMED = ("autoscalers", "chaos", "queues", "scaling")


def main(arguments: list[str]) -> int:
    named = [argument for argument in arguments if argument in PROGRAMS + NAMED]
    options = [argument for argument in arguments if argument not in PROGRAMS + NAMED]
    codes = [_run(name, options) for name in named or PROGRAMS]
    return max(codes)


def _run(name: str, options: list[str]) -> int:
    """Each is a module here, or a package; some use what the Makefile's programs use."""
    command = [sys.executable, "-m", name, *options]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join((str(HERE), str(SCRIPTS)))}
    return subprocess.run(command, env=environ, check=False).returncode  # noqa: S603 - our own


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
