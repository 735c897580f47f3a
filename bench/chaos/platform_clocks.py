"""The clocks of the platform's servers jump: nobody who lives is taken for dead, nor the reverse.

Needs Debian's `libfaketime`; it says so where that is missing.
"""

import asyncio
import random
import time
from typing import Final

from chaos.findings import Finding, platform_storm
from chaos.harness import until
from chaos.platform_kills import PATIENCE, PROMISED, feeding
from chaos.platform_steps import at_gate, install_gates
from chaos.raft import Raft
from chaos.servers import ClockedPostgres, ClockedValkey, faketime

PAUSE: Final = 0.3
AN_HOUR: Final = 3600
HELD: Final = 8


@platform_storm("P10", "Valkey's clock jumps by an hour, both ways", valkey=ClockedValkey)
async def jumping_clock(raft: Raft) -> Finding:
    valkey, draw = raft.valkey, random.Random(raft.pace.seed)
    assert isinstance(valkey, ClockedValkey), f"libfaketime: {faketime()}"
    await raft.dispatcher()
    await raft.worker()
    jumps = raft.pace.cuts
    async with feeding(raft):
        for _ in range(jumps):
            valkey.clock.jump(draw.choice((-AN_HOUR, AN_HOUR, 0)))
            await asyncio.sleep(PAUSE)
    is_done = await raft.done(PATIENCE)
    counts = await raft.audit()
    return Finding(f"{jumps} jumps; {counts}", is_done and counts.violations == 0, counts)


@platform_storm(
    "P16", "PostgreSQL's clock jumps by an hour while jobs run", postgres=ClockedPostgres
)
async def jumping_truth(raft: Raft) -> Finding:
    """Beats and due times are by that clock: who beat an hour ago by it has not been silent."""
    postgres, draw = raft.postgres, random.Random(raft.pace.seed)
    assert isinstance(postgres, ClockedPostgres), f"libfaketime: {faketime()}"
    await raft.dispatcher()
    await raft.worker(processes=2, slots=HELD)
    held = [await raft.send(gate="open") for _ in range(HELD)]
    await raft.started(held)
    jumps = raft.pace.cuts
    async with feeding(raft):
        for _ in range(jumps):
            postgres.clock.jump(draw.choice((-AN_HOUR, AN_HOUR, 0)))
            await asyncio.sleep(raft.pace.lease / 4)
    raft.open_gate("open")
    is_done = await raft.done(PATIENCE)
    once = sum(len(raft.ledger.of("start", job)) == 1 for job in held)
    counts = await raft.audit()
    figure = f"{jumps} jumps, {once} of {HELD} long jobs started once; {counts}"
    return Finding(figure, is_done and once == HELD and counts.violations == 0, counts)


@platform_storm(
    "P17", "A worker dies and PostgreSQL's clock jumps back: how soon?", postgres=ClockedPostgres
)
async def future_beat(raft: Raft) -> Finding:
    """Its last beat lies in the future by then."""
    postgres = raft.postgres
    assert isinstance(postgres, ClockedPostgres), f"libfaketime: {faketime()}"
    await raft.dispatcher()
    doomed = await raft.worker()
    job = await raft.send(gate="open")
    await raft.started([job])
    killed = await doomed.kill()
    postgres.clock.jump(-AN_HOUR)
    await raft.worker()
    is_again = await raft.started([job], 2, within=4 * PROMISED)
    took = time.monotonic() - killed
    postgres.clock.jump(0)
    raft.open_gate("open")
    is_done = await raft.done(PATIENCE)
    counts = await raft.audit()
    is_prompt = is_again and (took <= 2 * PROMISED or not raft.pace.judges_time)
    figure = f"{'run again' if is_again else 'NOT run again'} within {took:.0f} s; {counts}"
    return Finding(figure, is_prompt and is_done and counts.violations == 0, counts)


@platform_storm(
    "P18", "A worker dies with claimed messages and Valkey's clock jumps back", valkey=ClockedValkey
)
async def future_claim(raft: Raft) -> Finding:
    """The lease of what it claimed, and was never granted, seems to last for an hour more."""
    valkey = raft.valkey
    assert isinstance(valkey, ClockedValkey), f"libfaketime: {faketime()}"
    install_gates(raft)
    await raft.dispatcher()
    doomed = await raft.worker()
    async with at_gate(raft, "granting") as is_there:
        await raft.send()
        was_there = await until(is_there, PATIENCE)
        await doomed.kill()
    valkey.clock.jump(-AN_HOUR)
    await raft.worker()
    began = time.monotonic()
    is_done = await raft.done(4 * PROMISED)
    took = time.monotonic() - began
    counts = await raft.audit()
    is_prompt = took <= 2 * PROMISED or not raft.pace.judges_time
    is_sound = was_there and is_done and is_prompt and counts.violations == 0
    return Finding(
        f"{'run' if is_done else 'NOT run'} {took:.0f} s later; {counts}", is_sound, counts
    )
