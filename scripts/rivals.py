"""Makes the environments of the rivals that the queue bench measures: `rivals.py celery rq`.

Each has one of its own under `.rivals/`, exactly as its `locks/bench-….txt` says, because their
requirements exclude each other's and ours.
"""

import argparse
import sys

import apart
from toolchain import ROOT, SetupError, say


def ensure(name: str) -> None:
    apart.ensure(ROOT / ".rivals" / name, f"locks/bench-{name}.txt")


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
