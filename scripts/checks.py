"""Runs every check that needs no server, two at a time, and shows in full only what failed.

The slowest start first, so that the others run beside them. All run, also after one has failed.
"""

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from toolchain import ROOT

BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Check:
    """One program, what it guards, and the command that mends it where there is one."""

    name: str
    command: str
    remedy: str = ""
    says: bool = False

    def arguments(self) -> list[str]:
        program, *rest = self.command.split()
        return [str(BIN / program), *rest]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a check ended."""

    check: Check
    passed: bool
    output: str
    seconds: float


CHECKS = (
    Check("types", "mypy --no-error-summary"),
    Check("locks", "python scripts/locks.py --check", remedy="make lock"),
    Check("conventions", "pytest -q --no-header -p no:randomly tests/test_conventions.py"),
    Check("documents", "python scripts/documents.py --check", remedy="make docs"),
    Check("imports", "lint-imports --no-logo"),
    Check("lint", "ruff check --quiet --output-format concise", remedy="make fmt"),
    Check("format", "ruff format --check --quiet", remedy="make fmt"),
    Check("sizes", "python scripts/sizes.py", says=True),
)
MENDERS = ("ruff check --quiet --fix", "ruff format")


def run(check: Check) -> Outcome:
    started = time.monotonic()
    done = subprocess.run(
        check.arguments(),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Outcome(check, done.returncode == 0, done.stdout, time.monotonic() - started)


def show(outcome: Outcome) -> None:
    check = outcome.check
    word = "ok" if outcome.passed else "FAILED"
    note = outcome.output.strip() if outcome.passed and check.says else ""
    print(f"{check.name:<12} {word:<7} {outcome.seconds:5.1f} s  {note}".rstrip(), flush=True)
    if not outcome.passed:
        remedy = f"\n  (`{check.remedy}` may mend it)" if check.remedy else ""
        print(f"\n{outcome.output.strip()}{remedy}\n", flush=True)


def check_all() -> int:
    with ThreadPoolExecutor(max_workers=2) as pool:
        outcomes = []
        for future in as_completed([pool.submit(run, check) for check in CHECKS]):
            show(future.result())
            outcomes.append(future.result())
    failed = [outcome.check.name for outcome in outcomes if not outcome.passed]
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def mend() -> int:
    return max(run_visibly(command) for command in MENDERS)


def run_visibly(command: str) -> int:
    return subprocess.run(Check("", command).arguments(), cwd=ROOT, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the tree.")
    parser.add_argument("--mend", action="store_true", help="format, and mend what can be mended")
    return mend() if parser.parse_args().mend else check_all()


if __name__ == "__main__":
    sys.exit(main())
