"""Dispatcher and worker of the platform are killed at each step of the protocol, and at random.

A step is held by a gate in PostgreSQL or by a Valkey that is stopped, until whoever is at it has
died.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Final

from chaos.findings import Finding, platform_storm
from chaos.harness import Program, until
from chaos.platform_kills import PATIENCE, PROMISED, feeding
from chaos.raft import Raft
from jangada.db import utc_now
from jangada_queue.keys import QueueKeys

BATCH: Final = 20
SOON: Final = timedelta(seconds=3)
"""When jobs fall due that are to be promoted: later than all of them are written."""

GATES: Final = {
    "promoting": 9001,
    "burying": 9002,
    "recovering": 9003,
    "granting": 9004,
    "finishing": 9005,
    "committing": 9006,
}
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
    f"""CREATE TRIGGER granting BEFORE UPDATE ON jobs FOR EACH ROW
        WHEN (NEW.state = 'running' AND OLD.state = 'available')
        EXECUTE FUNCTION chaos_gate({GATES["granting"]})""",
    f"""CREATE TRIGGER finishing BEFORE UPDATE ON jobs FOR EACH ROW
        WHEN (NEW.state = 'completed')
        EXECUTE FUNCTION chaos_gate({GATES["finishing"]})""",
    f"""CREATE CONSTRAINT TRIGGER committing AFTER UPDATE ON jobs
        INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.state = 'completed')
        EXECUTE FUNCTION chaos_gate({GATES["committing"]})""",
)
AT_GATE: Final = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
BEFORE_TABLE: Final = "SELECT 1 FROM pg_locks WHERE relation = 'jobs'::regclass AND NOT granted"
IN_ROUND: Final = """SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND classid = (hashtext('jangada.dispatch')::bigint & 4294967295)::oid"""


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
    server = raft.valkey.child.pid
    with raft.superuser() as watcher:
        os.kill(server, signal.SIGSTOP)
        try:
            yield lambda: bool(watcher.execute(IN_ROUND).fetchone())
        finally:
            os.kill(server, signal.SIGCONT)


@asynccontextmanager
async def after_publishing(raft: Raft) -> AsyncIterator[Callable[[], bool]]:
    """The messages are out, and the dispatcher's transaction ends at this moment or soon.

    The first one was offered when its job was committed, without a dispatcher.
    """
    stream = QueueKeys.of(raft.runtime.queue.prefix, "default").stream
    with raft.redis() as client:
        yield lambda: client.xlen(stream) > 1


type Step = Callable[[Raft], AbstractAsyncContextManager[Callable[[], bool]]]

STEPS: Final[dict[str, Step]] = {
    "promote": lambda raft: at_gate(raft, "promoting"),
    "select": before_selecting,
    "publish": before_publishing,
    "published": after_publishing,
    "bury": lambda raft: at_gate(raft, "burying"),
    "recover": lambda raft: at_gate(raft, "recovering"),
}


async def at_work(raft: Raft, gate: str) -> Program:
    """A worker whose jobs are something for the sweep, once it is killed."""
    doomed = await raft.worker()
    jobs = [await raft.send(gate=gate) for _ in range(4)]
    await until(lambda: any(raft.ledger.of("start", job) for job in jobs), PATIENCE)
    return doomed


async def kill_at(raft: Raft, step: str, number: int) -> bool:
    """Kill the dispatcher while it is at the step; another one does the rest."""
    gate = f"{step}-{number}"
    early = await raft.dispatcher() if step in {"bury", "recover"} else None
    doomed = await at_work(raft, gate) if early else None
    if early is None:
        soon = utc_now() + SOON if step == "promote" else None
        for _ in range(BATCH):
            await raft.send(scheduled_at=soon)
    async with STEPS[step](raft) as is_there:
        if doomed is not None:
            await doomed.kill()
        dispatcher = early or await raft.dispatcher()
        was_there = await until(is_there, PATIENCE)
        await dispatcher.kill()
    raft.open_gate(gate)
    worker = await raft.worker()
    successor = await raft.dispatcher()
    is_done = await raft.done(PATIENCE)
    await successor.stop()
    await worker.stop()
    return was_there and is_done


@platform_storm("P3", "The dispatcher is killed at each step of the protocol: does another go on?")
async def dispatcher_kills(raft: Raft) -> Finding:
    install_gates(raft)
    times = 3 if raft.pace.judges_time else 1
    outcome = {
        step: [await kill_at(raft, step, number) for number in range(times)] for step in STEPS
    }
    return await told(raft, outcome)


async def told(raft: Raft, outcome: dict[str, list[bool]]) -> Finding:
    counts = await raft.audit()
    passed = ", ".join(f"{step} {sum(found)}/{len(found)}" for step, found in outcome.items())
    is_sound = all(all(found) for found in outcome.values()) and counts.violations == 0
    return Finding(f"{passed}; {counts}", is_sound, counts)


def install_gates(raft: Raft) -> None:
    with raft.superuser() as connection:
        for statement in TRIGGERS:
            connection.execute(statement)


WORKER_STEPS: Final = ("granting", "finishing", "committing")


async def kill_worker_at(raft: Raft, step: str) -> bool:
    """Kill the worker while PostgreSQL does what it asked for; another one does the rest."""
    worker = await raft.worker()
    async with at_gate(raft, step) as is_there:
        for _ in range(BATCH):
            await raft.send()
        was_there = await until(is_there, PATIENCE)
        await worker.kill()
    successor = await raft.worker()
    is_done = await raft.done(PATIENCE)
    await successor.stop()
    return was_there and is_done


@platform_storm("P14", "A worker is killed in its grant, its completion and its commit")
async def worker_kills(raft: Raft) -> Finding:
    install_gates(raft)
    await raft.dispatcher()
    times = 3 if raft.pace.judges_time else 1
    outcome = {
        step: [await kill_worker_at(raft, step) for _ in range(times)] for step in WORKER_STEPS
    }
    return await told(raft, outcome)


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


@platform_storm(
    "P15", "A dispatcher freezes with a queue's lock in hand: how soon goes another on?"
)
async def frozen_dispatcher(raft: Raft) -> Finding:
    """PostgreSQL ends a session that does nothing in a transaction of delivery, after 5 s."""
    for _ in range(BATCH):
        await raft.send()
    await raft.worker()
    async with before_publishing(raft) as is_there:
        frozen = await raft.dispatcher()
        was_there = await until(is_there, PATIENCE)
        frozen.signal(signal.SIGSTOP)
    await raft.dispatcher()
    began = time.monotonic()
    is_done = await raft.done(PATIENCE)
    took = time.monotonic() - began
    frozen.signal(signal.SIGCONT)
    async with feeding(raft):
        await asyncio.sleep(raft.pace.lease)
    is_done = await raft.done(PATIENCE) and is_done
    counts = await raft.audit()
    is_prompt = took <= PROMISED or not raft.pace.judges_time
    is_sound = was_there and is_done and is_prompt and counts.violations == 0
    return Finding(f"all done {took:.1f} s later; {counts}", is_sound, counts)
