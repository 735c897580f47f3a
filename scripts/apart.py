"""Makes environments apart from ours, each exactly as a lock of its own says.

They are for programs whose requirements exclude ours or each other's, or are too many for everybody
to have. A stamp is written last, as in `.venv`: an environment without the right one is made anew,
one with it costs nothing.
"""

import hashlib
from pathlib import Path

from environment import make_venv, sync_locked
from toolchain import ROOT, ensure_uv, only_one, text_of, wanted_python


def fingerprint(lock: str) -> str:
    """The place on disk, and a digest of all that the environment is made from."""
    code = Path(__file__).read_bytes()
    digest = hashlib.sha256(code + (ROOT / lock).read_bytes() + wanted_python().encode())
    return f"{ROOT}\n{digest.hexdigest()}\n"


def ensure(folder: Path, lock: str) -> None:
    """Have the environment of a lock, such as `locks/checkov.txt`, there. Raises `SetupError`."""
    wanted = fingerprint(lock)
    with only_one(folder.name):
        if text_of(folder / "complete") == wanted:
            return
        folder.parent.mkdir(exist_ok=True)
        uv = ensure_uv()
        make_venv(uv, folder)
        sync_locked(uv, lock, folder)
        (folder / "complete").write_text(wanted, encoding="utf-8")
