"""Workers and dispatchers of the platform are killed, by the hundred and at every step."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chaos.findings import Finding, platform_storm
from chaos.harness import Program
from chaos.raft import Raft
from chaos.spread import Spread

PROMISED: Final = 15.0
PAUSE: Final = 0.02
BATCH: Final = 20
PATIENCE: Final = 120.0


@asynccontextmanager
async def feeding(raft: Raft) -> AsyncIterator[None]:
    """Short jobs come all the time."""

    async def feed() -> None:
        while True:
            await raft.send()
            await asyncio.sleep(PAUSE)

    feeder = asyncio.create_task(feed())
    try:
        yield
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)


async def kill_round(raft: Raft, victim: Program, gate: str, spread: Spread) -> Program:
    """One job to each process; the victim's die, another worker takes over and is the next."""
    count = raft.pace.kills_at_once
    jobs = [await raft.send(gate=gate) for _ in range(count)]
    await raft.started(jobs, within=PATIENCE)
    heir = await raft.worker(processes=count, slots=1)
    killed = await victim.kill()
    await raft.started(jobs, 2, within=PATIENCE)
    for job in jobs:
        for start in raft.ledger.of("start", job)[1:2]:
            spread.add(start.at - killed)
    raft.open_gate(gate)
    return heir


@platform_storm("P1", "Workers are killed by the hundred, on silent and busy queues: how soon?")
async def kill_storm(raft: Raft) -> Finding:
    pace, spread = raft.pace, Spread()
    await raft.dispatcher()
    victim = await raft.worker(processes=pace.kills_at_once, slots=1)
    rounds = pace.kills // pace.kills_at_once
    for number in range(rounds):
        if number % 2:
            async with feeding(raft):
                victim = await kill_round(raft, victim, f"gate-{number}", spread)
        else:
            victim = await kill_round(raft, victim, f"gate-{number}", spread)
        await raft.done(PATIENCE)
    counts = await raft.audit()
    is_prompt = spread.p99 <= PROMISED or not pace.judges_time
    is_whole = len(spread) == rounds * pace.kills_at_once
    figure = f"{len(spread)} kills, run again after {spread}; {counts}"
    return Finding(figure, is_prompt and is_whole and counts.violations == 0, counts)


@platform_storm("P2", "Single processes of a worker are killed at random: how soon?")
async def child_storm(raft: Raft) -> Finding:
    """The parent sees its child die, so nobody waits for a silence."""
    pace, spread, draw = raft.pace, Spread(), random.Random(raft.pace.seed)
    await raft.dispatcher()
    worker = await raft.worker(processes=4, slots=4)
    async with feeding(raft):
        for number in range(pace.kills // 5 or 1):
            gate = f"gate-{number}"
            job = await raft.send(gate=gate)
            await raft.started([job], within=PATIENCE)
            await asyncio.sleep(draw.uniform(0, 0.05))
            (start,) = raft.ledger.of("start", job)
            killed = time.monotonic()
            worker.signal(signal.SIGKILL, start.pid)
            if await raft.started([job], 2, within=PATIENCE):
                spread.add(raft.ledger.of("start", job)[1].at - killed)
            raft.open_gate(gate)
    await raft.done(PATIENCE)
    counts = await raft.audit()
    figure = f"{len(spread)} kills, run again after {spread}; {counts}"
    is_prompt = spread.p99 <= PROMISED or not pace.judges_time
    return Finding(figure, is_prompt and counts.violations == 0, counts)
