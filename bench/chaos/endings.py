"""Workers are told to end, idle or with jobs that take longer than they may: E6, E12 and E13."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Final

from chaos.columns import Column
from chaos.crashes import hurried, traffic
from chaos.environments import oldest_python
from chaos.findings import Finding, scenario
from chaos.harness import Harness, until

PROMISED: Final = 2.0
"""Seconds in which an idle worker ends."""

IGNORED: Final = 10.0
"""Seconds after which a signal counts as ignored."""

SETTLING: Final = 5.0
TASK_OUTLIVES: Final = 4
"""How many times longer than the drain a job takes."""


def without_uvloop(column: Column, folder: Path) -> Column:
    """The same, where importing uvloop fails: then taskiq takes asyncio's own loop."""
    hiding = folder / "without_uvloop"
    hiding.mkdir(exist_ok=True)
    (hiding / "uvloop.py").write_text("raise ImportError\n")
    return replace(column, environ={"PYTHONPATH": str(hiding)})


async def idle_exit(harness: Harness, name: str, column: Column) -> tuple[str, bool]:
    harness.column = column
    worker = await harness.worker()
    took = await worker.stop(within=harness.grace(IGNORED))
    if took is None:
        await worker.kill()
        return f"{name} ignores SIGTERM for {IGNORED:.0f} s", False
    return f"{name} {took:.1f} s", took <= PROMISED or not harness.pace.judges_time


@scenario("E6", "An idle worker is told to end: how long does it take?")
async def idle_worker(harness: Harness) -> Finding:
    await harness.start_sender()
    column = harness.column
    ways = {"uvloop": column, "asyncio": without_uvloop(column, harness.folder)}
    if not column.is_ours:
        python, why_not = oldest_python(harness.folder)
        if python is None:
            ways[f"Python 3.11 NOT MEASURED ({why_not})"] = column
        else:
            ways["Python 3.11"] = replace(column, python=str(python))
    found = [await idle_exit(harness, name, way) for name, way in ways.items()]
    return Finding("; ".join(each[0] for each in found), all(each[1] for each in found))


@scenario("E12", "An async job outlives the drain: when is it run again?")
async def outlived_async(harness: Harness) -> Finding:
    pace = harness.pace
    await harness.start_sender()
    ending = await harness.worker("--wait-tasks-timeout", str(pace.drain))
    job = await harness.send("hold", gate="open")
    await harness.started(job)
    await ending.stop()
    await harness.worker()
    async with traffic(harness):
        is_again = await harness.started(job, 2, within=pace.watch)
    harness.open_gate("open")
    await harness.settled(within=harness.grace(SETTLING))
    if not is_again:
        figure = f"not within {pace.watch:.0f} s: after idle_timeout, 10 minutes"
        return Finding(figure, False, harness.ledger.audit())
    (gone, *_), (_, second) = harness.ledger.all("gone"), harness.ledger.of("start", job)[:2]
    return Finding(
        f"{second.at - gone.at:.1f} s after its worker ended", True, harness.ledger.audit()
    )


@scenario("E13", "A sync job outlives the drain: is it acknowledged, does it run again?")
async def outlived_sync(harness: Harness) -> Finding:
    pace, options = harness.pace, hurried(harness)
    await harness.start_sender(**options)
    ending = await harness.worker("--wait-tasks-timeout", str(pace.drain), options=options)
    job = await harness.send("hold_in_thread", seconds=TASK_OUTLIVES * pace.drain)
    await harness.started(job)
    await ending.stop()
    has_ended = bool(harness.ledger.of("end", job))
    await until(lambda: harness.pending() == 0, harness.grace(1.0))
    pending = harness.pending()
    await harness.worker(options=options)
    async with traffic(harness):
        is_again = await harness.started(job, 2, within=min(pace.watch, 3 * pace.lease))
    await harness.settled(within=harness.grace(SETTLING))
    await asyncio.sleep(TASK_OUTLIVES * pace.drain if is_again else 0)
    words = (
        "completes" if has_ended else "is cut off",
        f"{'not ' if pending else ''}acknowledged",
        "runs again" if is_again else "doesn't run again",
    )
    is_sound = is_again != has_ended
    return Finding(", ".join(words), is_sound, harness.ledger.audit())
