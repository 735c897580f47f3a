"""Servers of the platform lose everything, lose connections, stop, restart, and change clocks."""

import asyncio
import signal
import time
from typing import Final

from chaos.findings import Finding, platform_storm
from chaos.harness import until
from chaos.platform_kills import feeding
from chaos.raft import Raft
from jangada.local.postgres import EmbeddedPostgres

PATIENCE: Final = 240.0
WARM: Final = 5.0
"""Seconds over which the rate is taken."""

FIRST_START: Final = 5.0
RECOVERED: Final = 15.0
PART: Final = 0.9
PAUSE: Final = 0.3
AN_HOUR: Final = 3600


def ends_between(raft: Raft, begin: float, end: float) -> int:
    return sum(begin <= entry.at < end for entry in raft.ledger.all("end"))


async def settled(raft: Raft, within: float = PATIENCE) -> bool:
    """Wait until nothing is left to run."""
    left = "SELECT count(*) FROM jobs WHERE state <> 'completed'"
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not (await raft.execute(left))[0][0]:
            return True
        await asyncio.sleep(PAUSE)
    return False


@platform_storm("P6", "FLUSHALL with a long queue: how soon is the next start, and the old rate?")
async def flushed(raft: Raft) -> Finding:
    pace = raft.pace
    await raft.flood(pace.flood)
    await raft.dispatcher()
    await raft.worker(processes=2, slots=50)
    await until(lambda: len(raft.ledger.all("end")) >= pace.flood // 50, PATIENCE)
    began, warm = time.monotonic(), WARM if pace.judges_time else 0.1
    await asyncio.sleep(warm)
    before = ends_between(raft, began, began + warm) / warm
    with raft.redis() as client:
        client.flushall()
    at = time.monotonic()
    await until(lambda: any(e.at > at for e in raft.ledger.all("start")), PATIENCE)
    first = next((e.at - at for e in raft.ledger.all("start") if e.at > at), float("inf"))
    is_done = await settled(raft)
    recovered = back_at_rate(raft, at, before * PART)
    counts = raft.ledger.audit()
    figure = (
        f"first start after {first:.2f} s, {PART:.0%} of {before:,.0f} jobs/s after "
        f"{recovered:.0f} s; {counts}"
    )
    is_prompt = (first <= FIRST_START and recovered <= RECOVERED) or not pace.judges_time
    return Finding(figure, is_done and is_prompt and counts.violations == 0, counts)


def back_at_rate(raft: Raft, at: float, rate: float) -> float:
    """Seconds until the first second in which as many jobs ended."""
    last = max(entry.at for entry in raft.ledger.all("end"))
    second = 0.0
    while at + second + 1 < last:
        if ends_between(raft, at + second, at + second + 1) >= rate:
            return second + 1
        second += 0.25
    return second + 1


@platform_storm("P7", "Every connection to Valkey and PostgreSQL is cut, again and again")
async def cut_connections(raft: Raft) -> Finding:
    await raft.dispatcher()
    await raft.worker(processes=2)
    for _ in range(raft.pace.cuts):
        async with feeding(raft):
            await asyncio.sleep(PAUSE)
        with raft.redis() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        with raft.superuser() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
    is_done = await raft.done(PATIENCE)
    counts = await raft.audit()
    return Finding(f"{raft.pace.cuts} cuts; {counts}", is_done and not counts.violations, counts)


@platform_storm("P8", "PostgreSQL is restarted, in order and by a crash, while jobs run")
async def restarted_postgres(raft: Raft) -> Finding:
    await raft.dispatcher()
    await raft.worker(processes=2)
    times = max(raft.pace.cuts // 4, 2)
    for number in range(times):
        for _ in range(10):
            await raft.send(seconds=PAUSE)
        await asyncio.to_thread(restart, raft.postgres, crash=bool(number % 2))
    is_done = await raft.done(PATIENCE)
    counts = await raft.audit()
    return Finding(f"{times} restarts; {counts}", is_done and not counts.violations, counts)


def restart(postgres: EmbeddedPostgres, *, crash: bool) -> None:
    """As a failover looks to its clients, or as somebody who pulls the plug."""
    if crash:
        postgres.child.stop(((signal.SIGQUIT, 10.0),))
        postgres.restart()
    else:
        postgres.stop()
        postgres.start()


@platform_storm("P9", "Valkey is away for a while: what runs ends, what waits runs afterwards")
async def stopped_valkey(raft: Raft) -> Finding:
    outage = raft.pace.outage
    await raft.dispatcher()
    await raft.worker(slots=8)
    running = [await raft.send(seconds=outage / 2) for _ in range(8)]
    await raft.started(running)
    raft.valkey.stop()
    stopped = time.monotonic()
    waiting = [await raft.send() for _ in range(20)]
    within = outage if raft.pace.judges_time else PATIENCE
    ended_meanwhile = await raft.done(within, wanted=set(running))
    await asyncio.sleep(max(0.0, outage - (time.monotonic() - stopped)))
    none_started = not any(raft.ledger.of("start", job) for job in waiting)
    raft.valkey.start()
    back = time.monotonic()
    is_done = await raft.done(PATIENCE)
    took = time.monotonic() - back
    counts = await raft.audit()
    figure = f"{outage:.0f} s away, all done {took:.1f} s after its return; {counts}"
    is_sound = ended_meanwhile and none_started and is_done and counts.violations == 0
    return Finding(figure, is_sound, counts)
