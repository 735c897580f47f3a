"""Runs scenarios in columns: `make bench ARGS="chaos --only E1,E2 --short"`."""

import argparse
import asyncio
import logging
import sys
import traceback

import structlog

from chaos import (  # noqa: F401 - each registers its scenarios
    backlog,
    crashes,
    endings,
    failures,
    platform_hogs,
    platform_kills,
    platform_outages,
    platform_trials,
    queue_storms,
)
from chaos.columns import COLUMNS, SHORT, Column, Pace
from chaos.findings import SCENARIOS, Entry, Finding
from chaos.report import console, side_by_side, sums


async def measure(entry: Entry, column: Column, pace: Pace) -> Finding:
    """A scenario that breaks is a finding, too: the others go on."""
    try:
        return await entry.run(column, pace)
    except Exception as error:  # noqa: BLE001 - as above
        traceback.print_exc()
        return Finding(f"broke: {error!r}", False)


async def measure_all(
    entries: list[Entry], columns: list[Column], pace: Pace
) -> dict[tuple[str, str], Finding]:
    found = {}
    for entry in entries:
        for column in (column for column in columns if column in entry.columns):
            finding = await measure(entry, column, pace)
            found[entry.name, column.name] = finding
            verdict = "sound" if finding.is_sound else "NOT SOUND"
            console().print(f"{entry.name} {column.name}: {finding.figure} ({verdict})")
    return found


def in_order(name: str) -> tuple[str, int]:
    """E2 before E10."""
    return name[0], int(name[1:])


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--only", help="names of scenarios, with commas between")
    parser.add_argument("--short", action="store_true", help="leases below a second")
    parser.add_argument("--columns", help="words of columns' names, with commas between")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    names = options.only.split(",") if options.only else sorted(SCENARIOS, key=in_order)
    entries = [SCENARIOS[name] for name in names]
    words = options.columns.split(",") if options.columns else [""]
    columns = [column for column in COLUMNS if any(word in column.name for word in words)]
    there = [column for column in columns if not column.missing]
    found = asyncio.run(measure_all(entries, there, SHORT if options.short else Pace()))
    side_by_side(entries, columns, found)
    sums(there, found)
    ours = {column.name for column in there if column.is_ours}
    is_sound = all(finding.is_sound for (_, name), finding in found.items() if name in ours)
    return 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
