"""How jobs get in: what is claimed, what is granted, and what becomes of the rest."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, override
from uuid import UUID

import pytest

from jangada.jobs.delivery.connection import Connection, DirectConnection
from jangada.jobs.delivery.grant import GrantedJob
from jangada.jobs.delivery.tickets import Ticket
from jangada.jobs.delivery.workers import bury
from jangada.jobs.models import Job
from jangada.postgres_errors import DatabaseUnavailable
from jangada_queue.messages import Offer
from jangada_queue.workers import flag_drain, unflag_drain
from jangada_worker.child import intake
from jangada_worker.child.intake import Desk, Intake
from jangada_worker.child.slots import Slots

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = pytest.mark.anyio

LEASE = timedelta(seconds=4)
RENEWALS_OF_A_LEASE = 3
LONG = timedelta(minutes=1)


class Forgetful(DirectConnection):
    """A connection that loses the answer of its next piece of work, which took effect."""

    lost = 0

    @override
    async def run[T](self, work: Callable[[Connection], Awaitable[T]]) -> T:
        answer = await super().run(work)
        if self.lost > 0:
            self.lost -= 1
            raise DatabaseUnavailable("The answer was lost.")
        return answer


@dataclass(slots=True)
class Bay:
    """An intake whose granted jobs are merely noted."""

    raft: "Raft"
    intake: Intake
    connection: Forgetful
    slots: Slots
    granted: list[tuple[GrantedJob, int]] = field(default_factory=list)
    running: asyncio.Task[None] | None = None

    async def open(self, worker: UUID) -> None:
        self.intake.identify(worker)
        self.running = asyncio.create_task(self.intake.run())

    async def close(self) -> None:
        self.intake.stop.set()
        if self.running is not None:
            await self.running
        await self.connection.close()

    def accept(self, job: GrantedJob, slots: int) -> None:
        self.slots.take(slots)
        self.granted.append((job, slots))

    @property
    def job_ids(self) -> list[UUID]:
        return [job.job_id for job, _ in self.granted]

    async def publish(self, *jobs: Job, alone: bool = False) -> None:
        tickets = [
            Ticket(job.tenant_id, job.id, job.attempt, job.kind, is_alone=alone) for job in jobs
        ]
        offers = [ticket.offer() for ticket in tickets]
        await self.raft.runtime.queue.publish("default", offers, limit=100)

    async def until_granted(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.granted) >= count

        await self.raft.until(enough)

    async def until_depth(self, **wanted: int) -> None:
        async def reached() -> bool:
            depth = await self.raft.runtime.queue.depth("default")
            return all(getattr(depth, name) == value for name, value in wanted.items())

        await self.raft.until(reached)

    async def until_renewed(self, times: int) -> None:
        """Wait until Valkey has begun leases anew so many times more: only a renewal claims so."""
        valkey = self.raft.runtime.valkey

        async def renewals() -> int:
            found = (await valkey.info("commandstats")).get("cmdstat_xclaim", {"calls": 0})
            return int(found["calls"])

        before = await renewals()

        async def enough() -> bool:
            return await renewals() >= before + times

        await self.raft.until(enough)


@pytest.fixture
async def bay(raft: "Raft") -> AsyncIterator[Bay]:
    connection = Forgetful(raft.runtime.database, deadline=LONG)
    slots = Slots(2)
    desk = Desk(
        client=raft.runtime.queue,
        connection=connection,
        slots=slots,
        queues=["imports", "default"],
        kinds={"ping"},
        pod="pod",
        lease=LEASE,
        accept=lambda job, taken: made.accept(job, taken),  # noqa: PLW0108 - made below
        running=lambda: made.job_ids,
        young=lambda: 0,
    )
    made = Bay(raft, Intake(desk), connection, slots)
    yield made
    await made.close()


async def test_no_more_is_claimed_than_can_start(raft: "Raft", bay: Bay) -> None:
    jobs = [await raft.enqueue("ping") for _ in range(3)]
    await bay.publish(*jobs)
    await bay.open(await raft.register())
    await bay.until_granted(2)
    await bay.until_depth(waiting=1, claimed=0, window=1)
    bay.slots.release()
    await bay.until_granted(3)
    assert bay.job_ids == [job.id for job in jobs]
    await bay.until_depth(waiting=0, claimed=0, window=0)


async def test_a_message_without_a_job_is_forgotten(raft: "Raft", bay: Bay) -> None:
    job = await raft.enqueue("ping")
    await raft.cancel(job)
    await bay.publish(job)
    await raft.runtime.queue.publish("default", [Offer("no ticket", "ping", b"?")], limit=9)
    await bay.open(await raft.register())
    await bay.until_depth(waiting=0, claimed=0, window=0)
    assert bay.granted == []


async def test_unknown_kinds_are_left_to_others(raft: "Raft", bay: Bay) -> None:
    unknown, known = await raft.enqueue("test.of-tomorrow"), await raft.enqueue("ping")
    await bay.publish(unknown, known)
    await bay.open(await raft.register())
    await bay.until_granted(1)
    assert bay.job_ids == [known.id]
    assert (await raft.runtime.queue.depth("default")).parked == 1
    assert (await raft.reload(unknown)).state == "available"


async def test_a_draining_pod_takes_nothing_until_it_is_wanted_again(
    raft: "Raft", bay: Bay
) -> None:
    queue = raft.runtime.queue
    await flag_drain(queue, ["default"], "pod", LONG)
    await bay.publish(await raft.enqueue("ping"))
    await bay.open(await raft.register())
    assert await queue.wait_for_work(["default"], LONG) == "default"
    assert bay.granted == []
    await unflag_drain(queue, ["default"], "pod")
    await bay.until_granted(1)


async def test_a_grant_whose_answer_was_lost_is_handed_back(raft: "Raft", bay: Bay) -> None:
    """Else its row would say for ever that it runs here, with a living worker behind it."""
    job = await raft.enqueue("ping")
    bay.connection.lost = 1
    await bay.publish(job)
    await bay.open(await raft.register())

    async def handed_back() -> Job | None:
        row = await raft.reload(job)
        return row if (row.state, row.attempt) == ("available", 1) else None

    row = await raft.until(handed_back)
    assert (row.worker_id, row.max_attempts) == (None, 21)
    await bay.publish(row)
    await bay.until_granted(1)
    assert bay.granted[0][0].attempt == 2


async def test_a_worker_that_was_declared_dead_waits_for_its_new_id(raft: "Raft", bay: Bay) -> None:
    worker, job = await raft.register(), await raft.enqueue("ping")
    async with raft.runtime.database.direct() as connection:
        await bury(connection, [worker])
    await bay.publish(job)
    await bay.open(worker)
    await bay.until_depth(waiting=0, claimed=0, window=0)
    assert bay.granted == []
    bay.intake.identify(await raft.register())
    await bay.publish(job)
    await bay.until_granted(1)


async def test_a_job_that_is_to_run_alone_waits_for_its_neighbours(raft: "Raft", bay: Bay) -> None:
    """And its message is kept meanwhile, longer than a lease, without another process taking it."""
    neighbour, alone, later = [await raft.enqueue("ping") for _ in range(3)]
    await raft.execute("UPDATE jobs SET crashes = 2 WHERE id = :id", id=alone.id)
    await bay.publish(neighbour)
    await bay.open(await raft.register())
    await bay.until_granted(1)
    await bay.publish(alone, alone=True)
    await bay.publish(later)
    await bay.until_depth(waiting=1, claimed=1)
    await bay.until_renewed(RENEWALS_OF_A_LEASE + 1)
    assert await raft.runtime.queue.expire("default", LEASE) == []
    bay.slots.release()
    await bay.until_granted(2)
    job, slots = bay.granted[1]
    assert (job.job_id, job.crashes, slots) == (alone.id, 2, 2)
    bay.slots.release(slots)
    await bay.until_granted(3)


async def test_a_job_that_waits_to_run_alone_is_released_at_the_end(raft: "Raft", bay: Bay) -> None:
    neighbour, alone = await raft.enqueue("ping"), await raft.enqueue("ping")
    await bay.publish(neighbour)
    await bay.open(await raft.register())
    await bay.until_granted(1)
    await bay.publish(alone, alone=True)
    await bay.until_depth(waiting=0, claimed=1)
    await bay.close()
    await bay.until_depth(waiting=1, claimed=0)


async def test_an_idle_intake_ends_at_once(
    raft: "Raft", bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "WORK_WAIT", LONG)
    await bay.open(await raft.register())
    await bay.publish(await raft.enqueue("ping"))
    await bay.until_granted(1)
    bay.intake.stop.set()
    assert bay.running is not None
    await asyncio.wait_for(bay.running, LONG.total_seconds() / 2)


async def test_queues_take_turns(raft: "Raft", bay: Bay) -> None:
    first = await raft.enqueue("ping", queue="imports")
    second = await raft.enqueue("ping")
    offers = [Ticket(job.tenant_id, job.id, 0, "ping").offer() for job in (first, second)]
    await raft.runtime.queue.publish("imports", offers[:1], limit=9)
    await raft.runtime.queue.publish("default", offers[1:], limit=9)
    await bay.open(await raft.register())
    await bay.until_granted(2)
    assert set(bay.job_ids) == {first.id, second.id}


async def test_a_stop_while_it_waits_for_more_slots_claims_nothing(
    raft: "Raft", bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slot is free and more waits; those that began just now may soon make it several."""
    waits, wait_free = asyncio.Event(), bay.slots.wait_free

    async def noted(at_least: int = 1) -> int:
        if at_least > 1:
            waits.set()
        return await wait_free(at_least)

    monkeypatch.setattr(intake, "LINGER", LONG.total_seconds())
    monkeypatch.setattr(bay.slots, "wait_free", noted)
    bay.intake.desk = replace(bay.intake.desk, queues=["default"], young=lambda: 9)
    bay.slots.take(1)
    await bay.publish(*[await raft.enqueue("ping") for _ in range(3)])
    await bay.open(await raft.register())
    await bay.until_granted(1)
    bay.slots.release()
    await asyncio.wait_for(waits.wait(), LONG.total_seconds())
    await bay.close()
    assert len(bay.granted) == 1
    await bay.until_depth(waiting=2, claimed=0)
