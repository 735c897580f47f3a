"""Runs scenarios in columns: `make bench ARGS="chaos --only E1,E2 --short"`."""

import argparse
import asyncio
import logging
import secrets
import sys
import traceback
from dataclasses import replace
from typing import Final

import structlog

from chaos import (  # noqa: F401 - each registers its scenarios
    backlog,
    crashes,
    endings,
    failures,
    platform_clocks,
    platform_hogs,
    platform_kills,
    platform_outages,
    platform_steps,
    platform_trials,
    queue_storms,
)
from chaos.columns import COLUMNS, SHORT, Column, Pace
from chaos.findings import SCENARIOS, Entry, Finding
from chaos.report import console, side_by_side, sums

OF_TASKIQ: Final = {"E11"}
"""What no broker can mend: taskiq's own scheduler. Schedules of jobs fire once, which tests say."""


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


def pace_of(changes: str, *, short: bool, seed: int) -> Pace:
    """The usual pace with some of its fields changed: `lease=5,kills=100`."""
    pace = replace(SHORT if short else Pace(), seed=seed)
    for change in filter(None, changes.split(",")):
        name, _, value = change.partition("=")
        pace = replace(pace, **{name: type(getattr(pace, name))(float(value))})
    return pace


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--only", help="names of scenarios, with commas between")
    parser.add_argument("--short", action="store_true", help="leases of two seconds")
    parser.add_argument("--columns", help="words of columns' names, with commas between")
    parser.add_argument("--pace", default="", help="fields of the pace: lease=5,kills=100")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    names = options.only.split(",") if options.only else sorted(SCENARIOS, key=in_order)
    words = options.columns.split(",") if options.columns else [""]
    entries = [SCENARIOS[name] for name in names]
    columns = [
        column
        for column in COLUMNS
        if any(word in column.name for word in words)
        and any(column in entry.columns for entry in entries)
    ]
    there = [column for column in columns if not column.missing]
    pace = pace_of(options.pace, short=options.short, seed=options.seed)
    console().print(f"{pace}")
    found = asyncio.run(measure_all(entries, there, pace))
    side_by_side(entries, columns, found)
    totals = sums(there, found)
    ours = {column.name for column in there if column.is_ours}
    is_sound = all(
        finding.is_sound
        for (entry, column), finding in found.items()
        if column in ours and entry not in OF_TASKIQ
    )
    is_clean = not any(totals[name].violations for name in ours)
    return 0 if is_sound and is_clean and len(there) == len(columns) else 1


if __name__ == "__main__":
    sys.exit(main())
