"""Finished jobs are forgotten, each state after its own time, and nothing else is."""

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import select

from jangada.db import utc_now
from jangada.jobs import service
from jangada.jobs.delivery.retention import BEGINNING, prune
from jangada.jobs.models import FINAL_STATES, Job, JobState, JobUniqueKey
from jangada.jobs.schemas import Unique

if TYPE_CHECKING:
    from packages.jangada.tests.jobs.delivery.conftest import Bench

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)
WEEK = 7 * DAY


async def ended(bench: "Bench", state: JobState, ago: timedelta, **how: Any) -> Job:  # noqa: ANN401 - as enqueue has it
    job = await bench.enqueue(**how)
    await bench.change(job, state=state, finished_at=utc_now() - ago)
    return job


async def left(bench: "Bench", tenant: UUID | None = None) -> set[UUID]:
    async with bench.database.read(tenant or bench.person.tenant_id) as session:
        return set(await session.scalars(select(Job.id)))


@pytest.mark.parametrize("state", FINAL_STATES)
async def test_a_state_is_pruned_by_itself(bench: "Bench", state: JobState) -> None:
    jobs = {each: await ended(bench, each, 8 * DAY) for each in FINAL_STATES}
    young = await ended(bench, state, 6 * DAY)
    pruned = await prune(bench.connection, state, WEEK)
    assert (pruned.jobs, pruned.behind) == (1, timedelta(0))
    expected = {job.id for each, job in jobs.items() if each is not state} | {young.id}
    assert await left(bench) == expected


@pytest.mark.parametrize("state", sorted(set(JobState) - set(FINAL_STATES)))
async def test_what_has_not_ended_stays_however_old_it_is(bench: "Bench", state: JobState) -> None:
    """Even with a time of its end that it had before somebody redrove it."""
    job = await ended(bench, state, 800 * DAY)
    for each in FINAL_STATES:
        assert (await prune(bench.connection, each, DAY)).jobs == 0
    assert await left(bench) == {job.id}


async def test_what_another_row_is_about_stays(bench: "Bench") -> None:
    kept = await ended(bench, JobState.COMPLETED, 8 * DAY)
    await bench.change(kept, kept=True)
    assert (await prune(bench.connection, JobState.COMPLETED, WEEK)).jobs == 0
    await bench.change(kept, kept=False)
    assert (await prune(bench.connection, JobState.COMPLETED, WEEK)).jobs == 1


async def test_every_tenants_jobs_are_pruned_oldest_first(bench: "Bench") -> None:
    other = await bench.other_tenant()
    oldest = await ended(bench, JobState.COMPLETED, 10 * DAY, tenant_id=other)
    older = await ended(bench, JobState.COMPLETED, 9 * DAY)
    old = await ended(bench, JobState.COMPLETED, 8 * DAY, tenant_id=other)
    first = await prune(bench.connection, JobState.COMPLETED, WEEK, limit=2)
    assert first.jobs == 2
    assert await left(bench) | await left(bench, other) == {old.id} < {oldest.id, older.id, old.id}
    second = await prune(bench.connection, JobState.COMPLETED, WEEK, since=first.until, limit=2)
    assert (second.jobs, second.behind) == (1, timedelta(0))
    assert second.until > first.until > BEGINNING


async def test_a_full_batch_says_how_far_it_is_behind(bench: "Bench") -> None:
    for days in (10, 9):
        await ended(bench, JobState.COMPLETED, days * DAY)
    pruned = await prune(bench.connection, JobState.COMPLETED, WEEK, limit=1)
    assert timedelta(days=2.9) < pruned.behind < timedelta(days=3.1)


async def test_a_batch_begins_where_the_one_before_ended(bench: "Bench") -> None:
    job = await ended(bench, JobState.COMPLETED, 9 * DAY)
    since = utc_now() - 8 * DAY
    pruned = await prune(bench.connection, JobState.COMPLETED, WEEK, since=since)
    assert (pruned.jobs, pruned.until) == (0, since)
    assert await left(bench) == {job.id}


async def test_a_unique_key_goes_with_its_job_unless_another_has_taken_it(bench: "Bench") -> None:
    by = Unique()
    first = await ended(bench, JobState.DISCARDED, 9 * DAY, unique=by)
    second = await bench.enqueue(unique=by)
    assert second.id != first.id
    await prune(bench.connection, JobState.DISCARDED, WEEK)
    assert await keys(bench) == [second.id]
    await bench.change(second, state=JobState.COMPLETED, finished_at=utc_now() - 9 * DAY)
    await prune(bench.connection, JobState.COMPLETED, WEEK)
    assert await keys(bench) == []


async def keys(bench: "Bench") -> list[UUID]:
    async with bench.database.read(bench.person.tenant_id) as session:
        return list(await session.scalars(select(JobUniqueKey.job_id)))


async def test_it_waits_for_nobody_and_deletes_nothing_that_is_redriven(bench: "Bench") -> None:
    job = await ended(bench, JobState.DISCARDED, 99 * DAY)
    tenant = job.tenant_id
    async with bench.database.transaction(tenant) as session:
        await service.retry(session, tenant, job.id)
        pruned = await asyncio.wait_for(prune(bench.connection, JobState.DISCARDED, WEEK), 30)
    assert pruned.jobs == 0
    assert (await bench.reload(job)).state is JobState.AVAILABLE


async def test_two_at_once_share_the_work(bench: "Bench") -> None:
    jobs = [await ended(bench, JobState.COMPLETED, 9 * DAY) for _ in range(20)]
    async with bench.database.direct() as other:
        turns = await asyncio.gather(
            *(prune(each, JobState.COMPLETED, WEEK, limit=15) for each in (bench.connection, other))
        )
        rest = await prune(other, JobState.COMPLETED, WEEK)
    assert sum(turn.jobs for turn in (*turns, rest)) == len(jobs)
    assert await left(bench) == set()
