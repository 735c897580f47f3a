"""Measures the scaling policy: `make bench ARGS="scaling --plot scaling.svg"`, about a minute.

It prints the figures of every load under every policy as markdown, and judges the targets. The exit
code is 1 when one isn't held.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from jangada_operator.simulation.cluster import Terms
from jangada_operator.simulation.contest import POLICIES, Entry, Run, run
from jangada_operator.simulation.figures import with_totals
from jangada_operator.simulation.plot import save_plot
from jangada_operator.simulation.tables import markdown
from jangada_operator.simulation.traces import BY_NAME, load
from jangada_queue.policy.wanted import Wanted
from scaling.targets import judge

WANTED = Wanted(most=100)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scaling", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the loads are drawn from it")
    parser.add_argument("--plot", type=Path, help="draw the runs into this SVG")
    return parser.parse_args()


def runs(seed: int) -> Iterator[Run]:
    for name in BY_NAME:
        trace = load(name, seed)
        for policy in POLICIES:
            print(f"{name}, {policy}", file=sys.stderr, flush=True)
            yield run(trace, Entry(policy, policy, WANTED), Terms())


def main() -> int:
    given = parsed()
    found = list(runs(given.seed))
    figures = with_totals([each.figures for each in found])
    print(markdown(figures))
    if given.plot:
        save_plot(found, given.plot)
    return judge(figures, WANTED, given.seed)


if __name__ == "__main__":
    sys.exit(main())
