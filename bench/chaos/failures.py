"""Failing jobs, delays, strange messages, schedulers, middlewares: E7, E8, E10, E11, E14."""

import asyncio
import json
import time
from datetime import timedelta
from itertools import pairwise
from typing import Final
from uuid import uuid4

from taskiq.message import BrokerMessage

from chaos.findings import Finding, scenario
from chaos.harness import Harness, until

ATTEMPTS: Final = 4
SLACK: Final = 0.9
A_MINUTE: Final = 60.0
SCHEDULERS: Final = 2
STARTED: Final = "Startup completed"
PRECISION: Final = 1.0
"""Seconds by which a retry may be later than it was asked to be."""


def gaps(harness: Harness, job: str) -> list[float]:
    """The seconds between the starts of a job."""
    return [after.at - before.at for before, after in pairwise(harness.ledger.of("start", job))]


@scenario("E7", "Four attempts with exponential backoff: how far are they apart?")
async def backoff(harness: Harness) -> Finding:
    delay = harness.pace.retry_delay
    retry = {"default_retry_count": ATTEMPTS, "default_delay": delay, "use_delay_exponent": True}
    await harness.start_sender()
    await harness.worker(retry=json.dumps(retry))
    job = await harness.send("fail")
    await harness.started(job, ATTEMPTS, within=harness.pace.watch)
    found = gaps(harness, job)
    total = timedelta(seconds=sum(found)) / timedelta(milliseconds=1)
    is_apart = all(gap >= delay * number * SLACK for number, gap in enumerate(found, 1))
    figure = f"{len(found) + 1} attempts within {total:,.0f} ms, asked {delay:g} s and growing"
    return Finding(figure, is_apart and len(found) == ATTEMPTS - 1)


@scenario("E8", "A retry with a delay, through whatever keeps delays: how late is it?")
async def delayed_retry(harness: Harness) -> Finding:
    """Stock needs a schedule source and a scheduler for it; ours keeps delays itself."""
    delay, needs_scheduler = harness.pace.scheduled_delay, not harness.column.is_ours
    retry = json.dumps({"default_delay": delay, "is_scheduled": needs_scheduler})
    await harness.start_sender()
    await harness.worker(retry=retry)
    if needs_scheduler:
        await start_scheduler(harness, retry=retry)
    job = await harness.send("fail")
    await harness.started(job, 2, within=delay + 2 * A_MINUTE)
    (took, *_) = gaps(harness, job) or [float("inf")]
    is_sound = delay * SLACK <= took and (took <= delay + PRECISION or not harness.pace.judges_time)
    return Finding(f"a delay of {delay:g} s took {took:.1f} s", is_sound)


async def start_scheduler(harness: Harness, **more: str) -> None:
    scheduler = harness.run(
        *("scheduler", "chaos.application:build_scheduler"), environ=harness.environ({}, **more)
    )
    await until(lambda: scheduler.said(STARTED) > 0, A_MINUTE)


@scenario("E10", "A task nobody knows yet and a message nobody can read: what becomes of them?")
async def not_understood(harness: Harness) -> Finding:
    await harness.start_sender()
    assert harness.sender is not None
    old = await harness.worker()
    unknown = await harness.send("late")
    marker = uuid4().hex.encode()
    garbage = BrokerMessage(task_id="x", task_name="hold", message=marker, labels={})
    await harness.sender.kick(garbage)
    await harness.ended(await harness.send("hold"))
    await until(lambda: harness.pending() == 0, harness.grace(2.0))
    await old.stop()
    await harness.worker(knows="1")
    runs = await harness.ended(unknown, within=harness.grace(2 * harness.pace.lease))
    is_kept = any("dead" in key for key in harness.keys_that_hold(marker))
    figure = (
        f"unknown: {'waits for who knows it' if runs else 'gone'}; "
        f"unreadable: {'in the dead letters' if is_kept else 'acknowledged and gone'}"
    )
    return Finding(figure, runs and is_kept, harness.ledger.audit())


@scenario("E11", "Two replicas of the scheduler: how often does a tick run?")
async def two_schedulers(harness: Harness) -> Finding:
    """A tick is a minute of the clock; the first whole one counts."""
    cron = "* * * * *"
    await harness.start_sender()
    await harness.worker(ticks=cron)
    for _ in range(SCHEDULERS):
        await start_scheduler(harness, ticks=cron)
    minute = int(time.time() // A_MINUTE) + 1
    await asyncio.sleep((minute + 1) * A_MINUTE + PRECISION - time.time())
    runs = len(harness.ledger.of("start", f"tick-{minute}"))
    return Finding(f"each tick {runs} ×", runs == 1)


@scenario("E14", "A middleware raises once: is the job run afterwards?")
async def raising_middleware(harness: Harness) -> Finding:
    (harness.ledger.folder / "refuse").touch()
    await harness.start_sender()
    await harness.worker(refuses="1")
    job = await harness.send("hold")
    await until(lambda: harness.ledger.of("refused", job), harness.pace.watch)
    runs = await harness.started(job, within=harness.pace.watch)
    await harness.ended(job, within=harness.grace(1.0))
    if runs:
        (refused, *_), (start, *_) = (
            harness.ledger.of("refused", job),
            harness.ledger.of("start", job),
        )
        figure = f"run {start.at - refused.at:.1f} s later"
    else:
        figure = f"not run within {harness.pace.watch:.0f} s, {harness.pending()} unacknowledged"
    return Finding(figure, runs, harness.ledger.audit())
