"""Workers and dispatchers of the platform are killed, by the hundred and at every step."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Final

from chaos.findings import Finding, platform_storm
from chaos.harness import Program, until
from chaos.raft import Raft
from chaos.spread import Spread
from jangada.db import utc_now

PROMISED: Final = 15.0
PAUSE: Final = 0.02
BATCH: Final = 20
PATIENCE: Final = 120.0

GATES: Final = {"promoting": 9001, "burying": 9002, "recovering": 9003}
TRIGGERS: Final = (
    """CREATE FUNCTION chaos_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint);
        RETURN coalesce(NEW, OLD);
    END $$""",
    f"""CREATE TRIGGER promoting BEFORE UPDATE ON jobs FOR EACH ROW
        WHEN (NEW.state = 'available' AND OLD.state IN ('scheduled', 'retryable'))
        EXECUTE FUNCTION chaos_gate({GATES["promoting"]})""",
    f"""CREATE TRIGGER burying BEFORE DELETE ON workers FOR EACH ROW
        EXECUTE FUNCTION chaos_gate({GATES["burying"]})""",
    f"""CREATE TRIGGER recovering BEFORE UPDATE ON jobs FOR EACH ROW
        WHEN (NEW.state = 'available' AND OLD.state = 'running')
        EXECUTE FUNCTION chaos_gate({GATES["recovering"]})""",
)
AT_GATE: Final = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
BEFORE_TABLE: Final = "SELECT 1 FROM pg_locks WHERE relation = 'jobs'::regclass AND NOT granted"
IN_ROUND: Final = """SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND classid = (hashtext('jangada.dispatch')::bigint & 4294967295)::oid"""


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


@asynccontextmanager
async def at_gate(raft: Raft, gate: str) -> AsyncIterator[Callable[[], bool]]:
    """Whoever comes to the step waits; answers whether somebody does."""
    with raft.superuser() as holder, raft.superuser() as watcher:
        holder.execute("SELECT pg_advisory_lock(%s)", (GATES[gate],))
        yield lambda: bool(watcher.execute(AT_GATE, (GATES[gate],)).fetchone())


@asynccontextmanager
async def before_selecting(raft: Raft) -> AsyncIterator[Callable[[], bool]]:
    with raft.superuser() as holder, raft.superuser() as watcher, holder.transaction():
        holder.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        yield lambda: bool(watcher.execute(BEFORE_TABLE).fetchone())


@asynccontextmanager
async def before_publishing(raft: Raft) -> AsyncIterator[Callable[[], bool]]:
    """Valkey answers nobody: the dispatcher has the queue's lock and what it wants to publish."""
    with raft.redis() as client, raft.superuser() as watcher:
        client.execute_command("CLIENT", "PAUSE", 60_000, "ALL")
        try:
            yield lambda: bool(watcher.execute(IN_ROUND).fetchone())
        finally:
            client.execute_command("CLIENT", "UNPAUSE")


type Step = Callable[[Raft], AbstractAsyncContextManager[Callable[[], bool]]]

STEPS: Final[dict[str, Step]] = {
    "promote": lambda raft: at_gate(raft, "promoting"),
    "select": before_selecting,
    "publish": before_publishing,
    "bury": lambda raft: at_gate(raft, "burying"),
    "recover": lambda raft: at_gate(raft, "recovering"),
}


async def with_a_dead_worker(raft: Raft, gate: str) -> None:
    """Something for the sweep: jobs of a worker that is killed."""
    doomed = await raft.worker()
    jobs = [await raft.send(gate=gate) for _ in range(4)]
    await until(lambda: any(raft.ledger.of("start", job) for job in jobs), PATIENCE)
    await doomed.kill()


async def kill_at(raft: Raft, step: str, number: int) -> bool:
    """Kill the dispatcher while it is at the step; another one does the rest."""
    gate = f"{step}-{number}"
    dispatcher = await raft.dispatcher()
    if step in {"bury", "recover"}:
        await with_a_dead_worker(raft, gate)
    async with STEPS[step](raft) as is_there:
        if step in {"promote", "publish"}:
            await send_behind(raft, step)
        was_there = await until(is_there, PATIENCE)
        await dispatcher.kill()
    raft.open_gate(gate)
    worker = await raft.worker()
    successor = await raft.dispatcher()
    is_done = await raft.done(PATIENCE)
    await successor.stop()
    await worker.stop()
    return was_there and is_done


async def send_behind(raft: Raft, step: str) -> None:
    """Something to promote, or to publish; the wake after a commit can't be answered here."""
    soon = utc_now() + timedelta(seconds=0.2) if step == "promote" else None
    for _ in range(BATCH if step == "promote" else 2):
        await raft.send(scheduled_at=soon)


@platform_storm("P3", "The dispatcher is killed at each step of the protocol: does another go on?")
async def dispatcher_kills(raft: Raft) -> Finding:
    with install_gates(raft):
        times = 1 if not raft.pace.judges_time else 3
        outcome = {
            step: [await kill_at(raft, step, number) for number in range(times)] for step in STEPS
        }
    counts = await raft.audit()
    passed = ", ".join(f"{step} {sum(found)}/{len(found)}" for step, found in outcome.items())
    is_sound = all(all(found) for found in outcome.values()) and counts.violations == 0
    return Finding(f"{passed}; {counts}", is_sound, counts)


@contextmanager
def install_gates(raft: Raft) -> Iterator[None]:
    with raft.superuser() as connection:
        for statement in TRIGGERS:
            connection.execute(statement)
    yield


@platform_storm("P4", "The dispatcher is killed at random while jobs come: is one lost or doubled?")
async def random_dispatcher_kills(raft: Raft) -> Finding:
    draw, kills = random.Random(raft.pace.seed), raft.pace.cuts
    await raft.worker()
    dispatcher = await raft.dispatcher()
    async with feeding(raft):
        for _ in range(kills):
            heir = await raft.dispatcher()
            await asyncio.sleep(draw.uniform(0, 0.3))
            await dispatcher.kill()
            dispatcher = heir
    is_done = await raft.done(PATIENCE)
    counts = await raft.audit()
    figure = f"{kills} kills; {counts}"
    return Finding(figure, is_done and counts.violations == 0, counts)
