"""What waits, who takes it, what the figures say of it, and what is left behind: E2 to E4, E15."""

import asyncio
import time
from typing import Final

from chaos.findings import Finding, scenario
from chaos.harness import Harness, until
from jangada_queue.client import QueueClient
from jangada_queue.statistics import queue_stats

NEWCOMERS: Final = 3
ALLOWANCE: Final = 1.2
"""All four workers together may take so much longer than four perfect ones."""

QUIET: Final = 3.0
"""Seconds without a new end after which a queue is stuck; several jobs long."""

SENT: Final = 5
TURNS: Final = 3
EACH_TURN: Final = 10


async def until_stuck(harness: Harness, jobs: list[str]) -> int:
    """Wait until all have ended, or none has for a while: how many are left."""
    wanted, seen, since = set(jobs), -1, time.monotonic()
    while time.monotonic() - since < harness.grace(QUIET):
        ended = len(wanted & harness.ledger.jobs("end"))
        if ended == len(wanted):
            return 0
        if ended != seen:
            seen, since = ended, time.monotonic()
        await asyncio.sleep(0.05)
    return len(wanted) - seen


@scenario("E2", "Jobs wait behind one busy worker and three join: do they share, who leaves any?")
async def greedy_worker(harness: Harness) -> Finding:
    pace, count = harness.pace, harness.pace.backlog
    await harness.start_sender()
    jobs = [await harness.send("hold", seconds=pace.backlog_job, gate="joined")]
    jobs += [await harness.send("hold", seconds=pace.backlog_job) for _ in range(count - 1)]
    first = await harness.worker(slots=1)
    await harness.started(jobs[0])
    (own,) = {entry.pid for entry in harness.ledger.all("start")}
    await asyncio.gather(*(harness.worker(slots=1) for _ in range(NEWCOMERS)))
    await until(lambda: len(harness.ledger.all("start")) > 1, harness.grace(QUIET))
    harness.open_gate("joined")
    began = time.monotonic()
    bound = count * pace.backlog_job / (NEWCOMERS + 1) * ALLOWANCE
    is_done = await harness.ended(*jobs, within=bound if pace.judges_time else pace.watch)
    took = time.monotonic() - began
    newcomers = sum(entry.pid != own for entry in harness.ledger.all("end"))
    if is_done:  # the second half of the question needs a backlog again
        jobs = [await harness.send("hold", seconds=pace.backlog_job) for _ in range(count)]
        await harness.started(jobs[NEWCOMERS])
    await first.stop()
    left = await until_stuck(harness, jobs)
    done = f"all {count} done {took:.1f} s after" if is_done else f"not done {took:.0f} s after"
    figure = f"{done} three joined, which ran {newcomers}; SIGTERM left {left} of {count} behind"
    return Finding(figure, is_done and left == 0 and newcomers > 0, harness.ledger.audit())


async def waiting(harness: Harness) -> int | None:
    """What an autoscaler is told: the group's lag, as KEDA reads it, or our own statistics."""
    if not harness.column.is_ours:
        (stream,) = harness.streams().values()
        lag: int | None = stream["lag"]
        return lag
    from redis.asyncio import Redis  # noqa: PLC0415 - only here

    async with Redis.from_url(harness.url) as client:
        (stats,) = await queue_stats(QueueClient(client), ["taskiq"])
    return stats.waiting


@scenario("E3", "One job runs and the rest wait: what is an autoscaler told?")
async def hidden_backlog(harness: Harness) -> Finding:
    await harness.start_sender()
    count = harness.pace.backlog
    jobs = [await harness.send("hold", gate="open") for _ in range(count)]
    await harness.worker(slots=1)
    await harness.started(jobs[0])
    await until(lambda: harness.pending() > 1, 1.0)
    told = await waiting(harness)
    harness.open_gate("open")
    await harness.ended(*jobs)
    figure = f"told {told} with {count - 1} waiting"
    return Finding(figure, told == count - 1, harness.ledger.audit())


@scenario("E4", "An entry that nobody took yet is deleted (a cancel): what is an autoscaler told?")
async def deleted_entry(harness: Harness) -> Finding:
    await harness.start_sender()
    for _ in range(SENT):
        await harness.send("hold")
    with harness.redis() as client:
        (name,) = harness.streams()
        entries = client.xrange(name)
        client.xdel(name, entries[SENT // 2][0])
    told = await waiting(harness)
    said = "nil" if told is None else str(told)
    return Finding(f"told {said} with {SENT - 1} waiting", told == SENT - 1)


@scenario("E15", "Workers come and go: what do they leave on the server?")
async def leavings(harness: Harness) -> Finding:
    await harness.start_sender()
    for _ in range(TURNS):
        worker = await harness.worker()
        jobs = [await harness.send("hold") for _ in range(EACH_TURN)]
        await harness.ended(*jobs)
        await until(lambda: harness.pending() == 0, harness.grace(2.0))
        await worker.stop()
    consumers, entries = harness.figure("consumers"), harness.figure("entries")
    figure = (
        f"{consumers} consumers and {entries} entries "
        f"after {TURNS} workers and {TURNS * EACH_TURN} jobs"
    )
    return Finding(figure, consumers == 0 and entries == 0, harness.ledger.audit())
