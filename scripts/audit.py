"""Looks for known vulnerabilities in what our locks hold; `make audit`.

By `pip-audit`, which has an environment of its own. It asks PyPI's advisories about each version:
where a registry has none, as mirrors don't, nothing was looked at, and that is a failure.
"""

import subprocess
import sys

import apart
from toolchain import ROOT, SetupError, say

FOLDER = ROOT / ".audit"
SHIPPED = ("api", "worker", "operator", "image")
"""The locks of what runs at our users'."""


def look_at(lock: str) -> int:
    say(f"locks/{lock}.txt")
    program, file = str(FOLDER / "bin/pip-audit"), str(ROOT / f"locks/{lock}.txt")
    options = ["--strict", "--disable-pip", "--require-hashes", "--requirement", file]
    return subprocess.run([program, *options], check=False).returncode


def main() -> int:
    try:
        apart.ensure(FOLDER, "locks/audit.txt")
    except SetupError as error:
        say(str(error))
        return 1
    ended = [look_at(each) for each in SHIPPED]
    return int(any(ended))


if __name__ == "__main__":
    sys.exit(main())
