"""From the commit to the end of a job, through the real programs."""

import asyncio
import json
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jangada.db import utc_now
from jangada.jobs.delivery.progress import latest_progress
from jangada.jobs.models import JobState
from jangada_queue.signals import Progress

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = pytest.mark.anyio


async def test_a_committed_job_runs(fleet: "Raft") -> None:
    job = await fleet.enqueue("ping", message="ahoy")
    row = await fleet.until_state(job)
    assert (row.state, row.attempt) == (JobState.COMPLETED, 1)
    assert row.result is not None
    assert row.result["message"] == "ahoy"
    assert row.started_at is not None
    assert row.finished_at is not None


async def test_an_outcome_brings_a_job_back_or_ends_it(fleet: "Raft") -> None:
    snoozing = await fleet.enqueue("test.fail", how="snooze", until=3, max_attempts=1)
    discarded = await fleet.enqueue("test.fail", how="discard")
    failing = await fleet.enqueue("test.fail", how="error", until=2)
    spent = await fleet.enqueue("test.fail", how="error", max_attempts=1)
    row = await fleet.until_state(snoozing)
    assert (row.state, row.attempt, row.max_attempts) == (JobState.COMPLETED, 3, 3)
    assert (await fleet.until_state(discarded)).state == JobState.DISCARDED
    assert (await fleet.until_state(spent)).state == JobState.DISCARDED
    row = await fleet.until_state(failing)
    assert (row.state, row.attempt, len(row.errors)) == (JobState.COMPLETED, 2, 1)


async def test_a_running_job_is_cancelled(fleet: "Raft") -> None:
    job = await fleet.enqueue("test.effect", gate="never")
    await fleet.until_started(job)
    await fleet.cancel(job)
    assert (await fleet.until_state(job)).state == JobState.CANCELLED
    await fleet.until(lambda: fleet.signs(job, "cancelled"))
    assert await fleet.effects(job) == []


async def test_a_cancel_whose_nudge_was_lost_comes_with_the_beat(fleet: "Raft") -> None:
    job = await fleet.enqueue("test.effect", gate="never")
    await fleet.until_started(job)
    await fleet.execute(
        "UPDATE jobs SET cancel_requested_at = clock_timestamp() WHERE id = :id", id=job.id
    )
    assert (await fleet.until_state(job)).state == JobState.CANCELLED


async def test_a_cancelled_job_that_waits_never_starts(fleet: "Raft") -> None:
    job = await fleet.enqueue("test.effect", scheduled_at=utc_now() + timedelta(milliseconds=500))
    await fleet.cancel(job)
    await fleet.until_idle_for(timedelta(seconds=1))
    assert (await fleet.reload(job)).state == JobState.CANCELLED
    assert await fleet.signs(job) == []


async def test_progress_is_shown_while_a_job_runs_and_kept_at_its_end(
    fleet: "Raft", gate: str
) -> None:
    job = await fleet.enqueue("test.steps", gate=gate)
    queue = fleet.runtime.queue

    async def shown() -> Progress | None:
        row = await fleet.reload(job)
        progress = (await latest_progress(queue, [row])).get(job.id)
        return progress if progress is not None and progress.done == 1000 else None

    progress = await fleet.until(shown)
    assert (progress.attempt, progress.total) == (1, 1000)
    assert progress.changes < 20
    await fleet.open_gate(gate)
    row = await fleet.until_state(job)
    assert (row.progress_done, row.progress_total) == (1000, 1000)
    assert (await latest_progress(queue, [row]))[job.id] == Progress(1, 0, 1000, 1000)


async def test_what_a_job_logs_says_which_job_it_was(fleet: "Raft") -> None:
    (worker,) = fleet.programs
    job = await fleet.enqueue("ping", message="person@example.com")
    await fleet.until_state(job)

    async def logged() -> list[str]:
        return [line for line in worker.log.read_text().splitlines() if str(job.id) in line]

    ended = json.loads((await fleet.until(logged))[-1])
    assert (ended["event"], ended["tenant_id"]) == ("job ended", str(job.tenant_id))
    assert "person@example.com" not in worker.log.read_text()


async def test_a_job_that_is_due_later_runs_later(fleet: "Raft") -> None:
    due = utc_now() + timedelta(seconds=1)
    job = await fleet.enqueue("ping", scheduled_at=due)
    row = await fleet.until_state(job)
    assert row.started_at is not None
    assert row.started_at >= due


async def test_two_workers_start_each_job_once(raft: "Raft") -> None:
    await raft.dispatcher()
    jobs = [await raft.enqueue("test.effect") for _ in range(40)]
    workers = await asyncio.gather(raft.worker(processes=2, slots=4), raft.worker(slots=8))
    jobs += [await raft.enqueue("test.effect") for _ in range(40)]
    for job in jobs:
        assert (await raft.until_state(job)).state == JobState.COMPLETED
    effects = await raft.execute("SELECT job, attempt FROM effects")
    assert Counter(job for job, _ in effects) == {job.id: 1 for job in jobs}
    assert {attempt for _, attempt in effects} == {1}
    served = {row[0] for row in await raft.execute("SELECT DISTINCT pid FROM signs")}
    assert served <= {pid for worker in workers for pid in worker.family}


async def test_an_unknown_kind_waits_for_a_worker_that_knows_it(raft: "Raft") -> None:
    """As in a rolling deployment: the old worker goes on with what it knows."""
    await raft.dispatcher()
    old = await raft.worker(knows_application=False)
    unknown = await raft.enqueue("test.effect")
    known = await raft.enqueue("ping")
    await raft.until_state(known)
    assert (await raft.reload(unknown)).state == JobState.AVAILABLE
    await raft.worker()
    assert (await raft.until_state(unknown)).state == JobState.COMPLETED
    assert await old.stop() == 0
