"""Limits through the real programs: held exactly, whatever dies, and nobody waits for others'."""

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from jangada.testing import make_person

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("rehearsal")]

# How many ran when one began, itself included. A handler that was killed has no end: it is taken
# as the moment at which it began.
OVERLAPS = """
    SELECT count(*) FROM spans a JOIN spans b
        ON (b.job, b.attempt) = (a.job, a.attempt) OR b.began <= a.began AND a.began < b.ended
    {more} GROUP BY a.job, a.attempt ORDER BY 1 DESC LIMIT 1
"""


async def most_at_once(raft: "Raft", more: str = "") -> int:
    found = await raft.execute(OVERLAPS.format(more=more))
    return int(found[0][0])


async def until_one_runs(raft: "Raft", gate: str) -> int:
    """The id of the process whose handler waits at the gate."""

    async def found() -> int | None:
        statement = "SELECT pid FROM spans JOIN jobs ON id = job WHERE args->>'gate' = :gate"
        rows = await raft.execute(statement, gate=gate)
        return rows[0][0] if rows else None

    return int(await raft.until(found))


async def until_all_completed(raft: "Raft", kind: str) -> None:
    async def completed() -> bool:
        statement = "SELECT bool_and(state = 'completed') FROM jobs WHERE kind = :kind"
        return bool((await raft.execute(statement, kind=kind))[0][0])

    await raft.until(completed)


async def until_some_completed(raft: "Raft", kind: str, count: int) -> None:
    async def completed() -> bool:
        statement = "SELECT count(*) FROM jobs WHERE kind = :kind AND state = 'completed'"
        return bool((await raft.execute(statement, kind=kind))[0][0] >= count)

    await raft.until(completed)


@pytest.mark.unhurried
async def test_a_limit_is_never_exceeded_in_a_storm(raft: "Raft") -> None:
    """Two queues, three dispatchers, two workers; one of each is killed, and Valkey is emptied.

    The worker is one whose handler is under way.
    """
    other = await make_person(raft.runtime.database, "Bia")
    workers = [await raft.worker(slots=6), await raft.worker(slots=6)]
    doomed_dispatcher = await raft.dispatcher_process()
    await raft.dispatcher_process()

    async def enqueue(gate: str = "") -> None:
        for number in range(30):
            tenant = other.tenant_id if number % 3 else raft.person.tenant_id
            how = {"queue": "imports" if number % 2 else "default", "key": f"k{number % 4}"}
            await raft.enqueue("test.limited", tenant=tenant, gate=gate, **how)

    await enqueue()
    await until_some_completed(raft, "test.limited", 10)
    await enqueue(gate="after the kill")
    doomed = await until_one_runs(raft, "after the kill")
    doomed_dispatcher.send(signal.SIGKILL)
    (worker,) = (each for each in workers if doomed in each.family)
    await worker.kill()
    await raft.open_gate("after the kill")
    await until_some_completed(raft, "test.limited", 25)
    await raft.runtime.valkey.flushall()
    await raft.dispatcher()
    await until_all_completed(raft, "test.limited")
    assert 2 <= await most_at_once(raft) <= 3
    assert await most_at_once(raft, "AND a.tenant = b.tenant AND a.key = b.key") == 1


async def test_what_is_over_its_limit_keeps_nobody_waiting(raft: "Raft") -> None:
    await raft.worker(slots=2)
    await raft.dispatcher()
    blocked = [await raft.enqueue("test.limited", key="same", priority=1) for _ in range(60)]
    job = await raft.enqueue("ping", priority=4)
    await raft.until_state(job, "completed")
    states = {(await raft.reload(each)).state for each in blocked}
    assert "available" in states


async def test_the_slot_of_a_killed_worker_is_free_after_the_sweep(raft: "Raft") -> None:
    await raft.dispatcher()
    doomed = await raft.worker(slots=4)
    first = await raft.enqueue("test.limited", key="same", gate="opened later")
    await raft.until_started(first)
    second = await raft.enqueue("test.limited", key="same")
    later = await raft.enqueue("ping")
    await raft.until_state(later, "completed")
    assert (await raft.reload(second)).state == "available"
    await doomed.kill()
    await raft.open_gate("opened later")
    await raft.worker(slots=4)
    await raft.until_state(second, "completed")
    assert (await raft.until_state(first, "completed")).crashes == 1
    assert await most_at_once(raft) == 1


async def test_a_rate_limit_holds_through_failover_and_a_flush(raft: "Raft") -> None:
    await raft.worker(slots=8)
    doomed = await raft.dispatcher_process()
    for _ in range(16):
        await raft.enqueue("test.rated")
    await until_some_completed(raft, "test.rated", 4)
    doomed.send(signal.SIGKILL)
    await raft.runtime.valkey.flushall()
    await raft.dispatcher()
    await until_all_completed(raft, "test.rated")
    rows = await raft.execute(
        "SELECT count(*) FROM jobs a JOIN jobs b ON b.kind = a.kind AND b.started_at"
        " BETWEEN a.started_at AND a.started_at + interval '1 second'"
        " WHERE a.kind = 'test.rated' GROUP BY a.id ORDER BY 1 DESC LIMIT 1"
    )
    assert 1 <= rows[0][0] <= 5


@pytest.mark.unhurried
async def test_jobs_over_a_rate_wait_without_being_published(raft: "Raft") -> None:
    await raft.worker(slots=8)
    await raft.dispatcher()
    for _ in range(12):
        await raft.enqueue("test.rated")
    await until_all_completed(raft, "test.rated")
    depth = await raft.runtime.queue.depth("default")
    assert depth.published_total == 12
    assert (depth.waiting, depth.claimed, depth.window) == (0, 0, 0)


async def test_a_flood_of_one_tenant_does_not_delay_another(raft: "Raft") -> None:
    """A job of B starts before what is left of A's, whatever A has enqueued before it."""
    other = await make_person(raft.runtime.database, "Bia")
    flood = [await raft.enqueue("test.answer") for _ in range(200)]
    small = [await raft.enqueue("test.answer", tenant=other.tenant_id) for _ in range(20)]
    await raft.dispatcher()
    await raft.worker(slots=2)
    await asyncio.gather(*(raft.until_state(job, "completed") for job in small))
    starts = await raft.execute(
        "SELECT count(*) FROM jobs WHERE tenant_id = :flooding AND started_at <"
        " (SELECT max(started_at) FROM jobs WHERE tenant_id = :other)",
        flooding=raft.person.tenant_id,
        other=other.tenant_id,
    )
    assert starts[0][0] <= len(small) + raft.settings.jobs.min_window
    assert len(flood) > starts[0][0]
