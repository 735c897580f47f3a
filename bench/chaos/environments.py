"""An environment of an older Python for stock taskiq-redis, in the versions tested here."""

import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

from toolchain import ensure_uv, uv_environment

OLDEST: Final = "3.11"
RIVAL: Final = ("taskiq", "taskiq-redis", "redis")


def oldest_python(folder: Path) -> tuple[Path | None, str]:
    """Its interpreter, with stock installed; None and why not where it can't be had."""
    uv, environment = str(ensure_uv()), uv_environment()
    target = folder / f"python{OLDEST}"
    python = target / "bin" / "python"
    pins = [f"{name}=={version(name)}" for name in RIVAL]
    steps = (
        [uv, "venv", "--quiet", "--no-python-downloads", "--python", OLDEST, str(target)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *pins],
    )
    for step in steps:
        done = subprocess.run(  # noqa: S603 - our own tool
            step, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return None, done.stderr.strip().splitlines()[-1]
    return python, ""
