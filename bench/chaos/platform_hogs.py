"""Jobs that never yield, and a worker that freezes: nothing that lives is taken for dead."""

import asyncio
import signal
from typing import Final

from chaos.findings import Finding, platform_storm
from chaos.raft import Raft
from chaos.starvation import starvation

PATIENCE: Final = 60.0


async def hogged(raft: Raft, how: str) -> Finding:
    seconds = raft.pace.hog
    await raft.dispatcher()
    await raft.worker()
    await raft.worker()
    job = await raft.send(seconds=seconds, how=how)
    is_done = await raft.done(seconds + PATIENCE)
    starts = len(raft.ledger.of("start", job))
    counts = await raft.audit()
    figure = f"{seconds} s, started {starts} ×; {counts}"
    return Finding(figure, is_done and starts == 1 and counts.violations == 0, counts)


@platform_storm("P11", "A job keeps the processor for a minute and never yields")
async def burning(raft: Raft) -> Finding:
    return await hogged(raft, "burn")


@platform_storm("P12", "C code holds the interpreter lock for a minute")
async def holding_interpreter(raft: Raft) -> Finding:
    return await hogged(raft, "interpreter")


@platform_storm("P13", "A worker freezes for two leases and wakes: what does it commit?")
async def frozen(raft: Raft) -> Finding:
    """A second start is documented; a second effect would be a violation."""
    await raft.dispatcher()
    zombie = await raft.worker()
    jobs = [await raft.send(gate="open") for _ in range(4)]
    await raft.started(jobs)
    zombie.signal(signal.SIGSTOP)
    await raft.worker()
    await raft.started(jobs, 2, within=PATIENCE)
    await asyncio.sleep(raft.pace.lease)
    zombie.signal(signal.SIGCONT)
    raft.open_gate("open")
    later = [await raft.send() for _ in range(20)]
    is_done = await raft.done(PATIENCE)
    counts = await raft.audit()
    figure = f"{len(jobs)} jobs started again beside it, {len(later)} later ones ran; {counts}"
    return Finding(figure, is_done and counts.violations == 0, counts)


@platform_storm("P19", "The machine is starved by busy processes for three leases: who is dead?")
async def starved(raft: Raft) -> Finding:
    await raft.dispatcher()
    for _ in range(2):
        await raft.worker(processes=2, slots=5)
    jobs = [await raft.send(gate="open") for _ in range(20)]
    await raft.started(jobs)
    with starvation(raft.pace.starved_by):
        await asyncio.sleep(3 * raft.pace.lease)
    raft.open_gate("open")
    is_done = await raft.done(PATIENCE)
    counts = await raft.audit()
    return Finding(f"{len(jobs)} jobs held; {counts}", is_done and not counts.violations, counts)
