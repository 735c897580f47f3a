"""No statement of delivery reads the whole table of jobs.

Small tables tempt PostgreSQL to do that, and it keeps such a plan for as long as the connection
lives, while the table grows to millions.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import pytest

from jangada.db import utc_now
from jangada.jobs import service
from jangada.jobs.delivery import dispatch
from jangada.jobs.delivery.finish import finish
from jangada.jobs.delivery.grant import grant
from jangada.jobs.delivery.policy import completed
from jangada.jobs.delivery.retention import prune
from jangada.jobs.delivery.sweep import sweep
from jangada.jobs.delivery.tickets import Ticket
from jangada.jobs.models import FINAL_STATES
from jangada.jobs.schemas import JobArgs, NewJob
from jangada_queue.messages import OnOffer
from jangada_queue.watch import Watch

if TYPE_CHECKING:
    from packages.jangada.tests.jobs.delivery.conftest import Bench

pytestmark = pytest.mark.anyio

NOTHING = OnOffer(waiting=0, turn="", keys=frozenset(), messages=())
"""What is on offer."""

PREPARED_FROM = 6
"""psycopg prepares a statement at its fifth use; PostgreSQL may then plan it once for all."""


class Later(JobArgs):
    kind: ClassVar[str] = "test.later"


async def reads_of_everything(bench: "Bench") -> int:
    return (await statistics(bench))[0]


async def statistics(bench: "Bench") -> tuple[int, int]:
    """How often the table of jobs was read as a whole, and how many rows an index led to."""
    await bench.connection.execute("SELECT pg_stat_force_next_flush()")
    cursor = await bench.connection.execute(
        "SELECT seq_scan, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'jobs'"
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0]), int(row[1] or 0)


async def deliver(bench: "Bench") -> None:
    """A job's whole way, and what is done beside it."""
    job, worker = await bench.enqueue(), await bench.worker()
    await dispatch.survey(bench.connection)
    await dispatch.list_queues(bench.connection)
    await dispatch.promote(bench.connection, "default")
    async with dispatch.dispatch_round(bench.connection, "default") as held:
        assert held is not None
        choice = await held.choose(10, NOTHING, limits=await held.limits())
    assert [ticket.job_id for ticket in choice.tickets] == [job.id]
    granted = await grant(bench.connection, worker, choice.tickets)
    await dispatch.upstream(bench.connection, "default", published_total=0, window=0)
    assert await finish(bench.connection, [completed(each, None) for each in granted]) == {job.id}
    watch = Watch(timedelta(0))
    assert (await sweep(bench.connection, watch)).may_act
    for state in FINAL_STATES:
        await prune(bench.connection, state, timedelta(days=1))


async def test_no_statement_of_delivery_reads_the_whole_table(bench: "Bench") -> None:
    await bench.connection.execute("VACUUM ANALYZE jobs")  # PostgreSQL now knows that it is empty
    before = await reads_of_everything(bench)
    for _ in range(PREPARED_FROM):
        await deliver(bench)
    assert await reads_of_everything(bench) == before


async def test_what_is_scheduled_for_tomorrow_is_not_read_today(bench: "Bench") -> None:
    tomorrow = utc_now() + timedelta(days=1)
    async with bench.database.transaction(bench.person.tenant_id) as session:
        jobs = [NewJob(Later(), scheduled_at=tomorrow) for _ in range(1000)]
        await service.enqueue_many(session, jobs, tenant_id=bench.person.tenant_id)
    due = await bench.enqueue(scheduled_at=tomorrow)
    await bench.make_due(due)
    _, before = await statistics(bench)
    assert await dispatch.promote(bench.connection, "default") == 1
    figures = await dispatch.upstream(bench.connection, "default", published_total=0, window=0)
    assert (figures.available, figures.due_60s) == (1, 0)
    _, after = await statistics(bench)
    assert after - before < 100


async def test_a_batch_reads_its_own_jobs_and_no_others(bench: "Bench") -> None:
    """Joined to the keys, all that is available or runs would be read for each batch."""
    tenant = bench.person.tenant_id
    async with bench.database.transaction(tenant) as session:
        jobs = await service.enqueue_many(
            session, [Later() for _ in range(2_000)], tenant_id=tenant
        )
    worker = await bench.worker()
    tickets = [Ticket(tenant, job, 0, Later.kind) for job in jobs]
    everything = await grant(bench.connection, worker, tickets[1_000:])
    assert len(everything) == 1_000
    _, before = await statistics(bench)
    for first in range(0, 10 * PREPARED_FROM, 10):
        granted = await grant(bench.connection, worker, tickets[first : first + 10])
        ended = await finish(bench.connection, [completed(each, None) for each in granted])
        assert len(ended) == 10
    _, after = await statistics(bench)
    assert after - before <= 10 * PREPARED_FROM * 6
