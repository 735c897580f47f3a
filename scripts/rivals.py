"""Makes the environments of the rivals that the queue bench measures: `rivals.py celery rq`.

Each has one of its own under `.rivals/`, exactly as its `locks/bench-….txt` says, because their
requirements exclude each other's and ours. A stamp is written last, as in `.venv`: an environment
without the right one is made anew, one with it costs nothing.
"""

import argparse
import hashlib
import sys
from pathlib import Path

from environment import make_venv, sync_locked
from toolchain import ROOT, SetupError, ensure_uv, only_one, say, text_of, wanted_python

RIVALS = ROOT / ".rivals"


def folder_of(name: str) -> Path:
    return RIVALS / name


def fingerprint(name: str) -> str:
    """The place on disk, and a digest of all that the environment is made from."""
    lock = (ROOT / f"locks/bench-{name}.txt").read_bytes()
    digest = hashlib.sha256(Path(__file__).read_bytes() + lock + wanted_python().encode())
    return f"{ROOT}\n{digest.hexdigest()}\n"


def ensure(name: str) -> None:
    folder, wanted = folder_of(name), fingerprint(name)
    with only_one(f"rival-{name}"):
        if text_of(folder / "complete") == wanted:
            return
        RIVALS.mkdir(exist_ok=True)
        uv = ensure_uv()
        make_venv(uv, folder)
        sync_locked(uv, f"locks/bench-{name}.txt", folder)
        (folder / "complete").write_text(wanted, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the environments of the bench's rivals.")
    parser.add_argument("names", nargs="+", help="as in locks/bench-NAME.txt")
    try:
        for name in parser.parse_args().names:
            ensure(name)
    except SetupError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
