"""PostgreSQL alone gives the right to run, and gives it once."""

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from jangada.db import new_id
from jangada.jobs.delivery.grant import grant
from jangada.jobs.delivery.tickets import Ticket, UnreadableTicket
from jangada.jobs.delivery.workers import beat, bury, deregister, hand_back
from jangada.jobs.models import JobState
from jangada_queue.messages import Claim

if TYPE_CHECKING:
    from packages.jangada.tests.jobs.delivery.conftest import Bench

pytestmark = pytest.mark.anyio


async def test_a_grant_answers_what_is_needed_to_run(bench: "Bench") -> None:
    job, worker = await bench.enqueue(), await bench.worker()
    granted = await bench.start(job, worker)
    assert (granted.job_id, granted.tenant_id) == (job.id, job.tenant_id)
    assert (granted.kind, granted.queue, granted.args) == ("test.greet", "default", {"name": "Ana"})
    assert (granted.attempt, granted.max_attempts, granted.failures) == (1, 20, 0)
    assert granted.key == f"{job.id}:1"
    row = await bench.reload(job)
    assert (row.state, row.attempt, row.worker_id) == (JobState.RUNNING, 1, worker)
    assert row.started_at is not None
    assert row.revision == job.revision + 1


async def test_a_start_is_granted_once(bench: "Bench") -> None:
    job, worker = await bench.enqueue(), await bench.worker()
    ticket = bench.ticket(job)
    assert len(await grant(bench.connection, worker, [ticket])) == 1
    assert await grant(bench.connection, worker, [ticket]) == []


async def test_many_are_granted_in_one_statement(bench: "Bench") -> None:
    jobs = [await bench.enqueue() for _ in range(5)]
    gone = Ticket(jobs[0].tenant_id, new_id(), 0, "test.greet")
    stale = Ticket(jobs[0].tenant_id, jobs[0].id, 3, "test.greet")
    tickets = [gone, stale, *(bench.ticket(job) for job in jobs[1:])]
    granted = await grant(bench.connection, await bench.worker(), tickets)
    assert {each.job_id for each in granted} == {job.id for job in jobs[1:]}


async def test_a_cancelled_job_is_not_granted(bench: "Bench") -> None:
    job = await bench.enqueue()
    ticket = bench.ticket(job)
    await bench.change(job, state=JobState.CANCELLED)
    assert await grant(bench.connection, await bench.worker(), [ticket]) == []


async def test_a_worker_that_was_declared_dead_is_granted_nothing(bench: "Bench") -> None:
    job, worker = await bench.enqueue(), await bench.worker()
    await bury(bench.connection, [worker])
    assert await grant(bench.connection, worker, [bench.ticket(job)]) == []
    assert (await bench.reload(job)).state == JobState.AVAILABLE


async def test_a_job_that_crashed_twice_is_granted_only_to_run_alone(bench: "Bench") -> None:
    job, worker = await bench.enqueue(), await bench.worker()
    await bench.change(job, crashes=2)
    assert await grant(bench.connection, worker, [bench.ticket(job)]) == []
    alone = await grant(bench.connection, worker, [bench.ticket(job)], is_alone=True)
    assert [granted.crashes for granted in alone] == [2]


async def test_rivals_share_the_jobs_without_a_double_start(bench: "Bench") -> None:
    jobs = [await bench.enqueue() for _ in range(40)]
    tickets = [bench.ticket(job) for job in jobs]
    workers = [await bench.worker() for _ in range(4)]

    async def rival(worker: UUID, order: list[Ticket]) -> list[UUID]:
        async with bench.database.direct() as connection:
            return [job.job_id for job in await grant(connection, worker, order)]

    granted = await asyncio.gather(
        *(
            rival(worker, tickets[number:] + tickets[:number])
            for number, worker in enumerate(workers)
        )
    )
    started = [job_id for part in granted for job_id in part]
    assert len(started) == len(set(started))
    running = [job for job in jobs if (await bench.reload(job)).state == JobState.RUNNING]
    assert sorted(started) == sorted(job.id for job in running)


async def test_a_beat_brings_back_cancels_and_who_is_dead(bench: "Bench") -> None:
    alive, dead = await bench.worker(), await bench.worker()
    job, other = await bench.enqueue(), await bench.enqueue()
    await bench.start(job, alive)
    await bench.start(other, alive)
    await bury(bench.connection, [dead])
    await bench.ask_to_cancel(job)
    answer = await beat(bench.connection, [alive, dead])
    assert (answer.alive, answer.cancelled) == ({alive}, {job.id})


async def test_a_worker_that_ends_in_order_hands_back_what_it_holds(bench: "Bench") -> None:
    job, worker = await bench.enqueue(queue="imports"), await bench.worker()
    await bench.start(job, worker)
    assert await deregister(bench.connection, [worker]) == ["imports"]
    row = await bench.reload(job)
    assert (row.state, row.worker_id, row.crashes) == (JobState.AVAILABLE, None, 0)
    assert (row.attempt, row.max_attempts) == (1, 21)
    assert (await beat(bench.connection, [worker])).alive == frozenset()


async def test_a_job_that_is_handed_back_after_a_cancel_is_cancelled(bench: "Bench") -> None:
    job, worker = await bench.enqueue(), await bench.worker()
    await bench.start(job, worker)
    await bench.ask_to_cancel(job)
    assert await deregister(bench.connection, [worker]) == ["default"]
    assert (await bench.reload(job)).state == JobState.CANCELLED


async def test_grants_whose_answer_was_lost_are_handed_back(bench: "Bench") -> None:
    known, lost, worker = await bench.enqueue(), await bench.enqueue(), await bench.worker()
    await bench.start(known, worker)
    await bench.start(lost, worker)
    await hand_back(bench.connection, [worker], keep=[known.id])
    assert (await bench.reload(known)).state == JobState.RUNNING
    assert (await bench.reload(lost)).state == JobState.AVAILABLE


def test_a_ticket_survives_the_queue() -> None:
    ticket = Ticket(new_id(), new_id(), 7, "test.greet", is_alone=True)
    offer = ticket.offer()
    assert Ticket.read(Claim("default", "1-0", offer.key, offer.kind, offer.body)) == ticket


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("", b"{}"),
        ("not-an-id:1", b"{}"),
        (f"{UUID(int=1)}:1", b"{}"),
        (f"{UUID(int=1)}:1", b"[]"),
        (f"{UUID(int=1)}:1", b"\xff"),
        (f"{UUID(int=1)}:1", b'{"tenant_id": 3}'),
        (f"{UUID(int=1)}:x", b'{"tenant_id": "00000000-0000-0000-0000-000000000001"}'),
    ],
)
def test_what_is_no_ticket_is_said_to_be_none(key: str, body: bytes) -> None:
    with pytest.raises(UnreadableTicket):
        Ticket.read(Claim("default", "1-0", key, "test.greet", body))
