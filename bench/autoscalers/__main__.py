"""Measures KEDA's operator and ours: `make bench ARGS=autoscalers`, about half an hour.

It prints the figures of both as markdown, and judges the targets. The exit code is 1 when one isn't
held. The first run builds the control plane and KEDA, which takes another half.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from chaos.forkserver import fork_server
from scaling.targets import report

from autoscalers.contestants import CONTESTANTS
from autoscalers.course import run, say
from autoscalers.load import load
from autoscalers.measured import Measured
from autoscalers.report import markdown, verdicts


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="autoscalers", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the load is drawn from it")
    return parser.parse_args()


def measure(seed: int) -> list[Measured]:
    trace = load(seed)
    say(f"{len(trace.services)} jobs of {trace.work:,.0f} s in all, seed {seed}")
    with fork_server() as forks, TemporaryDirectory(prefix="jangada-") as folder:
        return [
            asyncio.run(run(each, trace, forks, Path(folder) / each.name)) for each in CONTESTANTS
        ]


def main() -> int:
    given = parsed()
    # A bench that is ended from outside still ends its servers and removes its files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    found = measure(given.seed)
    print(f"Seed {given.seed}, {found[0].figures.jobs} jobs.\n\n{markdown(found)}\n")
    return report(verdicts(found))


if __name__ == "__main__":
    sys.exit(main())
