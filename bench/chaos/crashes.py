"""Workers die, jobs are long, connections are cut: E1, E5 and E9."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from chaos.findings import Finding, scenario
from chaos.harness import Harness

PROMISED: Final = 15.0
"""Seconds within which a killed worker's jobs start again."""

TRAFFIC: Final = 0.1
JOBS: Final = 10
AT_ONCE: Final = 5.0


def hurried(harness: Harness) -> dict[str, Any]:
    """Stock hands messages on after ten minutes; nobody waits for that in a bench."""
    milliseconds = int(harness.pace.idle_timeout * 1000)
    return {} if harness.column.is_ours else {"idle_timeout": milliseconds}


@asynccontextmanager
async def traffic(harness: Harness) -> AsyncIterator[None]:
    """Other jobs come all the time, so that reads return something."""

    async def enqueue() -> None:
        while True:
            await harness.send("hold")
            await asyncio.sleep(TRAFFIC)

    enqueuing = asyncio.create_task(enqueue())
    try:
        yield
    finally:
        enqueuing.cancel()
        await asyncio.gather(enqueuing, return_exceptions=True)


@scenario("E1", "A worker is killed in mid-job and nobody enqueues: is the job run again?")
async def silent_queue(harness: Harness) -> Finding:
    options, watch = hurried(harness), harness.pace.watch
    await harness.start_sender(**options)
    doomed = await harness.worker(options=options)
    job = await harness.send("hold", gate="open")
    await harness.started(job)
    killed = await doomed.kill()
    await harness.worker(options=options)
    if await harness.started(job, 2, within=watch):
        took = harness.ledger.of("start", job)[1].at - killed
        harness.open_gate("open")
        await harness.ended(job)
        is_prompt = took <= PROMISED or not harness.pace.judges_time
        return Finding(f"run again {took:.1f} s after the kill", is_prompt, harness.ledger.audit())
    await harness.send("hold")
    revived = await harness.started(job, 2, within=AT_ONCE)
    how = "at once when another was enqueued" if revived else "nor when another was enqueued"
    return Finding(f"not run again within {watch:.0f} s; {how}", False, harness.ledger.audit())


@scenario("E5", "A job takes longer than the lease (idle_timeout): is it started again?")
async def long_job(harness: Harness) -> Finding:
    options, pace = hurried(harness), harness.pace
    seconds = pace.long_job if harness.column.is_ours else 10 * pace.idle_timeout
    await harness.start_sender(**options)
    await harness.worker(options=options)
    job = await harness.send("hold", seconds=seconds)
    async with traffic(harness):
        await harness.ended(job, within=harness.grace(seconds + AT_ONCE))
    starts = harness.ledger.of("start", job)
    processes = len({entry.pid for entry in starts})
    figure = f"a job of {seconds:.0f} s was started {len(starts)} × in {processes} process"
    await harness.settled()
    await asyncio.sleep(seconds if len(starts) > 1 else 0)
    return Finding(figure, len(starts) == 1, harness.ledger.audit())


@scenario("E9", "One CLIENT KILL while ten jobs run: do they go on?")
async def cut_connections(harness: Harness) -> Finding:
    await harness.start_sender()
    await harness.worker()
    seconds = max(2.0, harness.pace.lease / 2)
    jobs = [await harness.send("hold", seconds=seconds) for _ in range(JOBS)]
    for job in jobs:
        await harness.started(job)
    with harness.redis() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    all_ended = await harness.ended(*jobs, within=harness.grace(seconds + AT_ONCE))
    missing = set(jobs) - harness.ledger.jobs("end")
    again = await harness.ended(*jobs, within=harness.pace.watch) if missing else True
    later = await harness.send("hold")
    works = await harness.ended(later, within=harness.pace.watch)
    ran_once = all(len(harness.ledger.of("start", job)) == 1 for job in jobs)
    figure = f"{len(missing)} of {JOBS} aborted"
    if missing:
        figure += f", {'run again' if again else 'not run again'} within {harness.pace.watch:.0f} s"
    return Finding(figure, all_ended and ran_once and works, harness.ledger.audit())
