"""The queue alone, without PostgreSQL: kills, cuts, outages, hogs, frost and jumping clocks.

`FLUSHALL` is none of its storms: here Valkey is the truth, and what it forgets is forgotten.
"""

import asyncio
import random
import signal
import time
from typing import Final

from chaos.crashes import PROMISED, hurried, traffic
from chaos.findings import Finding, storm
from chaos.harness import Harness
from chaos.servers import ClockedValkey, faketime
from chaos.spread import Spread
from chaos.starvation import starvation

PATIENCE: Final = 120.0
PAUSE: Final = 0.3
JOBS: Final = 20
SLOTS: Final = 10
AN_HOUR: Final = 3600


async def all_started(harness: Harness, jobs: list[str], times: int = 1) -> bool:
    """Whether each of them has started so often, in good time."""
    found = [await harness.started(job, times, within=PATIENCE) for job in jobs]
    return all(found)


async def kill_round(harness: Harness, gate: str, spread: Spread) -> None:
    """One job to each process, and all of them die; one with room for all takes over.

    It is one because 25 that start at once keep a small machine busy for longer than a lease;
    what becomes of leases then is the question of Q8.
    """
    count, options = harness.pace.kills_at_once, hurried(harness)
    victim = await harness.worker(processes=count, slots=1, options=options)
    jobs = [await harness.send("hold", gate=gate) for _ in range(count)]
    await all_started(harness, jobs)
    heir = await harness.worker(slots=2 * count, options=options)
    killed = await victim.kill()
    await all_started(harness, jobs, 2)
    for job in jobs:
        for start in harness.ledger.of("start", job)[1:2]:
            spread.add(start.at - killed)
    harness.open_gate(gate)
    await harness.settled(PATIENCE)
    await heir.stop()


@storm("Q1", "Workers are killed by the hundred, on silent and busy queues: how soon?")
async def kill_storm(harness: Harness) -> Finding:
    pace, spread = harness.pace, Spread()
    await harness.start_sender(**hurried(harness))
    rounds = pace.kills // pace.kills_at_once
    for number in range(rounds):
        if number % 2:
            async with traffic(harness):
                await kill_round(harness, f"gate-{number}", spread)
        else:
            await kill_round(harness, f"gate-{number}", spread)
    await harness.worker(options=hurried(harness))
    await harness.settled(PATIENCE)
    counts = harness.ledger.audit()
    is_prompt = spread.p99 <= PROMISED or not pace.judges_time
    is_whole = len(spread) == rounds * pace.kills_at_once
    figure = f"{len(spread)} kills, run again after {spread}; {counts}"
    return Finding(figure, is_prompt and is_whole and counts.violations == 0, counts)


@storm("Q2", "Every connection is cut, again and again, while jobs run")
async def cut_connections(harness: Harness) -> Finding:
    await harness.start_sender()
    await harness.worker(processes=2, slots=SLOTS)
    for _ in range(harness.pace.cuts):
        for _ in range(JOBS):
            await harness.send("hold", seconds=PAUSE)
        with harness.redis() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await asyncio.sleep(PAUSE)
    is_done = await harness.settled(PATIENCE)
    counts = harness.ledger.audit()
    return Finding(f"{harness.pace.cuts} cuts; {counts}", is_done and not counts.violations, counts)


@storm("Q3", "Valkey is away for a while: what runs ends, what waits runs afterwards")
async def stopped_valkey(harness: Harness) -> Finding:
    outage = harness.pace.outage
    await harness.start_sender()
    await harness.worker(slots=SLOTS)
    running = [await harness.send("hold", seconds=outage / 2) for _ in range(SLOTS)]
    await all_started(harness, running)
    for _ in range(JOBS):
        await harness.send("hold")
    harness.valkey.stop()
    stopped = time.monotonic()
    ended_meanwhile = await harness.ended(*running, within=harness.grace(outage))
    await asyncio.sleep(max(0.0, outage - (time.monotonic() - stopped)))
    harness.valkey.start()
    back = time.monotonic()
    is_done = await harness.settled(PATIENCE)
    took = time.monotonic() - back
    await asyncio.sleep(2 * harness.pace.lease)  # what ended unacknowledged would run again now
    counts, pending = harness.ledger.audit(), harness.pending()
    figure = (
        f"{outage:.0f} s away, all done {took:.1f} s after its return, "
        f"{pending} unacknowledged; {counts}"
    )
    is_sound = ended_meanwhile and is_done and pending == 0 and counts.violations == 0
    return Finding(figure, is_sound, counts)


async def hogged(harness: Harness, task: str) -> Finding:
    seconds = harness.pace.hog
    await harness.start_sender()
    await harness.worker()
    await harness.worker()
    job = await harness.send(task, seconds=seconds)
    is_done = await harness.ended(job, within=seconds + PATIENCE)
    await asyncio.sleep(2 * harness.pace.lease)
    starts, counts = len(harness.ledger.of("start", job)), harness.ledger.audit()
    figure = f"{seconds} s, started {starts} ×; {counts}"
    return Finding(figure, is_done and starts == 1 and counts.violations == 0, counts)


@storm("Q4", "A job keeps the processor for a minute and never yields")
async def burning(harness: Harness) -> Finding:
    return await hogged(harness, "burn")


@storm("Q5", "C code holds the interpreter lock for a minute")
async def holding_interpreter(harness: Harness) -> Finding:
    return await hogged(harness, "hold_interpreter")


@storm("Q6", "A worker freezes for two leases and wakes: does it harm what went on without it?")
async def frozen(harness: Harness) -> Finding:
    """A second start is documented; what else could go wrong is not."""
    await harness.start_sender()
    zombie = await harness.worker(slots=4)
    jobs = [await harness.send("hold", gate="open") for _ in range(4)]
    await all_started(harness, jobs)
    zombie.signal(signal.SIGSTOP)
    await harness.worker(slots=SLOTS)
    are_again = await all_started(harness, jobs, 2)
    await asyncio.sleep(harness.pace.lease)
    zombie.signal(signal.SIGCONT)
    harness.open_gate("open")
    for _ in range(JOBS):
        await harness.send("hold")
    is_done = await harness.settled(PATIENCE)
    counts = harness.ledger.audit()
    figure = f"{len(jobs)} jobs started again beside it, {JOBS} later ones ran; {counts}"
    return Finding(figure, are_again and is_done and counts.violations == 0, counts)


@storm("Q7", "Valkey's clock jumps by an hour, both ways", valkey=ClockedValkey)
async def jumping_clock(harness: Harness) -> Finding:
    """By the server's clock leases seem to end early or late: the sweeper has to see through it."""
    valkey, draw = harness.valkey, random.Random(harness.pace.seed)
    assert isinstance(valkey, ClockedValkey), f"libfaketime: {faketime()}"
    await harness.start_sender()
    await harness.worker(processes=2, slots=SLOTS)
    for _ in range(harness.pace.cuts):
        for _ in range(JOBS):
            await harness.send("hold", seconds=PAUSE)
        valkey.clock.jump(draw.choice((-AN_HOUR, AN_HOUR, 0)))
        await asyncio.sleep(PAUSE)
    valkey.clock.jump(0)
    is_done = await harness.settled(PATIENCE)
    counts = harness.ledger.audit()
    figure = f"{harness.pace.cuts} jumps; {counts}"
    return Finding(figure, is_done and counts.violations == 0, counts)


@storm("Q8", "The machine is starved by busy processes for three leases: who is taken for dead?")
async def starved(harness: Harness) -> Finding:
    await harness.start_sender()
    for _ in range(2):
        await harness.worker(processes=2, slots=SLOTS)
    jobs = [await harness.send("hold", gate="open") for _ in range(2 * SLOTS)]
    await all_started(harness, jobs)
    with starvation(harness.pace.starved_by):
        await asyncio.sleep(3 * harness.pace.lease)
    harness.open_gate("open")
    is_done = await harness.settled(PATIENCE)
    counts = harness.ledger.audit()
    return Finding(f"{len(jobs)} jobs held; {counts}", is_done and not counts.violations, counts)


@storm("Q9", "Workers start on a starved machine: do they keep what they take at once?")
async def starved_start(harness: Harness) -> Finding:
    """Whatever renews leases may come up later than what claims messages."""
    await harness.start_sender()
    count = harness.pace.kills_at_once
    jobs = [await harness.send("hold", gate="open") for _ in range(count)]
    with starvation(harness.pace.starved_by):
        await harness.worker(processes=count, slots=1)
        await all_started(harness, jobs)
        await asyncio.sleep(2 * harness.pace.lease)
    harness.open_gate("open")
    is_done = await harness.settled(PATIENCE)
    counts = harness.ledger.audit()
    return Finding(f"{len(jobs)} jobs held; {counts}", is_done and not counts.violations, counts)
