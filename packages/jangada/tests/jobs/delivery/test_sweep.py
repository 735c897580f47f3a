"""Jobs of dead workers start again, and only those."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from jangada.jobs.delivery.dispatch import dispatch_round
from jangada.jobs.delivery.grant import grant
from jangada.jobs.delivery.sweep import Swept, sweep
from jangada.jobs.delivery.workers import beat, bury
from jangada.jobs.models import JobState
from jangada_queue.messages import OnOffer
from jangada_queue.watch import Watch

if TYPE_CHECKING:
    from packages.jangada.tests.jobs.delivery.conftest import Bench

pytestmark = pytest.mark.anyio

TIMEOUT = timedelta(seconds=10)
START = datetime(2026, 3, 1, tzinfo=UTC)


class Ready(Watch):
    """A watch that has seen enough."""

    def see(self, at: datetime, monotonic: float) -> bool:
        del at, monotonic
        return True


async def swept(bench: "Bench") -> Swept:
    return await sweep(bench.connection, Ready(TIMEOUT))


async def test_a_silent_workers_jobs_become_available(bench: "Bench") -> None:
    job, worker = await bench.enqueue(queue="imports"), await bench.worker()
    await bench.start(job, worker)
    await bench.silence(worker, 11)
    answer = await swept(bench)
    assert (answer.workers, answer.recovered) == ({worker}, {job.id: "imports"})
    assert answer.queues == {"imports"}
    row = await bench.reload(job)
    assert (row.state, row.crashes, row.worker_id) == (JobState.AVAILABLE, 1, None)
    assert (row.attempt, row.max_attempts) == (1, 21)
    assert row.errors[0]["code"] == "job.crashed"


async def test_a_living_workers_jobs_are_left_alone_however_long_they_run(bench: "Bench") -> None:
    job, worker = await bench.enqueue(), await bench.worker()
    await bench.start(job, worker)
    await bench.change(job, started_at=START)
    await bench.silence(worker, 9)
    assert await swept(bench) == Swept(may_act=True)
    assert (await bench.reload(job)).state == JobState.RUNNING


async def test_a_beat_in_time_saves_a_worker(bench: "Bench") -> None:
    worker = await bench.worker()
    await bench.silence(worker, 60)
    assert (await beat(bench.connection, [worker])).alive == {worker}
    assert (await swept(bench)).workers == frozenset()


async def test_a_buried_workers_jobs_do_not_wait_for_the_timeout(bench: "Bench") -> None:
    job, worker = await bench.enqueue(), await bench.worker()
    await bench.start(job, worker)
    await bury(bench.connection, [worker])
    assert (await swept(bench)).recovered.keys() == {job.id}


async def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(bench: "Bench") -> None:
    job, worker = await bench.enqueue(), await bench.worker()
    await bench.start(job, worker)
    await bench.ask_to_cancel(job)
    await bury(bench.connection, [worker])
    assert (await swept(bench)).recovered == {}
    row = await bench.reload(job)
    assert row.state == JobState.CANCELLED
    assert row.finished_at is not None


async def crash(bench: "Bench", job_id: object) -> None:
    worker = await bench.worker()
    async with dispatch_round(bench.connection, "default") as held:
        assert held is not None
        on_offer = OnOffer(waiting=0, turn="", keys=frozenset(), messages=())
        (ticket,) = (await held.choose(5, on_offer, limits={})).tickets
    assert ticket.job_id == job_id
    assert await grant(bench.connection, worker, [ticket], is_alone=ticket.is_alone)
    await bury(bench.connection, [worker])
    await swept(bench)


async def test_a_job_that_crashes_alone_is_poison(bench: "Bench") -> None:
    """Twice it may have been a neighbour; the third time it ran alone."""
    job = await bench.enqueue(max_attempts=1)
    for crashes in (1, 2):
        await crash(bench, job.id)
        row = await bench.reload(job)
        assert (row.state, row.crashes) == (JobState.AVAILABLE, crashes)
    await crash(bench, job.id)
    row = await bench.reload(job)
    assert (row.state, row.crashes) == (JobState.DISCARDED, 3)
    assert [error["code"] for error in row.errors] == ["job.crashed", "job.crashed", "job.poison"]
    assert row.finished_at is not None


async def test_a_beat_from_before_the_clock_was_set_back_saves_nobody(bench: "Bench") -> None:
    job, worker = await bench.enqueue(), await bench.worker()
    await bench.start(job, worker)
    await bench.silence(worker, -3600)
    assert (await swept(bench)).recovered.keys() == {job.id}


async def test_a_sweep_does_nothing_before_its_watch_is_ready(bench: "Bench") -> None:
    job, worker = await bench.enqueue(), await bench.worker()
    await bench.start(job, worker)
    await bench.silence(worker, 600)
    assert await sweep(bench.connection, Watch(TIMEOUT)) == Swept(may_act=False)
    assert (await bench.reload(job)).state == JobState.RUNNING
