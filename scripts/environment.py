"""Makes `.venv` from the hashed locks, on a machine that has nothing but make and a Python ≥ 3.11.

Third-party packages come from `locks/dev.txt`, and the workspace's members are installed editable
on top. The stamp `.venv/complete` is written last: an environment without one was interrupted and
is made anew; one with the right stamp costs nothing.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from toolchain import (
    ROOT,
    SetupError,
    ensure_uv,
    find_python,
    only_one,
    run,
    say,
    text_of,
    uv_environment,
    wanted_python,
)

VENV = ROOT / ".venv"
STAMP = VENV / "complete"


def members() -> list[Path]:
    """The workspace's distributions, relative to its root."""
    found = (
        path for area in ("packages", "services") for path in ROOT.glob(f"{area}/*/pyproject.toml")
    )
    return sorted(path.parent.relative_to(ROOT) for path in found)


def fingerprint() -> str:
    """The place on disk, and a digest of all that the environment is made from."""
    sources = [Path("locks/uv.txt"), Path("locks/dev.txt"), Path(".python-version")]
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in [*sources, *(member / "pyproject.toml" for member in members())]:
        digest.update((ROOT / path).read_bytes())
    return f"{ROOT}\n{digest.hexdigest()}\n"


def is_whole() -> bool:
    """Whether the last change of `.venv` was finished, here and for the wanted Python."""
    stamp = text_of(STAMP) or ""
    return stamp.startswith(f"{ROOT}\n") and (VENV / f"bin/python{wanted_python()}").exists()


def is_current() -> bool:
    return is_whole() and text_of(STAMP) == fingerprint()


def make_venv(uv: Path, folder: Path = VENV) -> None:
    version = wanted_python()
    python = find_python()
    choice = [python] if python else [version, "--managed-python"]
    name = folder.relative_to(ROOT)
    say(f"Making {name} with {python or f'a Python {version} that uv downloads'}.")
    command = [
        str(uv),
        "venv",
        "--quiet",
        "--clear",
        "--no-project",
        str(folder),
        "--python",
        *choice,
    ]
    made = subprocess.run(
        command, cwd=ROOT, env=uv_environment(), check=False, stderr=subprocess.PIPE, text=True
    )
    if made.returncode and python:
        raise SetupError(f"uv could not make {name}:\n{made.stderr.strip()}")
    if made.returncode:
        reason = made.stderr.strip().splitlines()[-1].strip()
        raise SetupError(
            f"Jangada runs on Python {version}. There is no python{version} on the PATH or behind "
            f"pyenv, and uv could not download one ({reason}).\n"
            f"Install it, for example with `apt install python{version}` or "
            f"`pyenv install {version}`, and run the same command again."
        )


def sync_locked(uv: Path, lock: str, folder: Path = VENV) -> None:
    """Third-party packages exactly as locked, and no others."""
    say(f"Installing what {lock} lists; the first time may take a minute or two.")
    locked = ["pip", "sync", "--quiet", "--require-hashes", lock]
    into = ["--python", str(folder / "bin/python")]
    run([uv, *locked, *into], uv_environment(), what="Installing the locked packages")


def add_workspace(uv: Path) -> None:
    """The workspace's members, editable, on top of the locked packages."""
    editable = [part for member in members() for part in ("--editable", f"./{member}")]
    workspace = ["pip", "install", "--quiet", "--no-deps", *editable]
    into = ["--python", str(VENV / "bin/python")]
    run([uv, *workspace, *into], uv_environment(), what="Installing the workspace")


def warm() -> None:
    """Let Python keep compiled what is used, also where the machine tells it not to."""
    command = [VENV / "bin/python", ROOT / "scripts/warm.py"]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=False)


def ensure() -> None:
    if is_current():
        return
    with only_one("venv"):
        if is_current():
            return
        uv = ensure_uv()
        if not is_whole():
            make_venv(uv)
        STAMP.unlink(missing_ok=True)
        sync_locked(uv, "locks/dev.txt")
        add_workspace(uv)
        warm()
        STAMP.write_text(fingerprint(), encoding="utf-8")


def main() -> int:
    try:
        ensure()
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Interrupted. The next `make` makes the environment anew.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
