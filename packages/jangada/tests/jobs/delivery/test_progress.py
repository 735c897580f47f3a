"""How far a job is: Valkey knows while it runs, its row at the end."""

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from jangada.jobs.delivery import policy
from jangada.jobs.delivery.finish import finish
from jangada.jobs.delivery.progress import latest_progress
from jangada.runtime import Runtime
from jangada_queue.client import QueueClient
from jangada_queue.signals import Progress, write_progress

if TYPE_CHECKING:
    from packages.jangada.tests.jobs.delivery.conftest import Bench

pytestmark = pytest.mark.anyio


async def test_a_running_jobs_progress_is_that_of_its_attempt(
    bench: "Bench", runtime: Runtime
) -> None:
    jobs = [await bench.enqueue() for _ in range(3)]
    for job in jobs[:2]:
        await bench.start(job)
    await write_progress(runtime.queue, str(jobs[0].id), Progress(1, 4, 10, 20))
    await write_progress(runtime.queue, str(jobs[1].id), Progress(7, 4, 10, 20))
    rows = [await bench.reload(job) for job in jobs]
    assert await latest_progress(runtime.queue, rows) == {jobs[0].id: Progress(1, 4, 10, 20)}


async def test_an_ended_jobs_progress_is_in_its_row(bench: "Bench", runtime: Runtime) -> None:
    granted = await bench.start(await bench.enqueue())
    await write_progress(runtime.queue, str(granted.job_id), Progress(1, 4, 10, 20))
    await finish(bench.connection, [policy.completed(granted, None, done=20, total=20)])
    row = await bench.reload(granted)
    assert await latest_progress(runtime.queue, [row]) == {row.id: Progress(1, 0, 20, 20)}


async def test_without_valkey_running_jobs_have_no_progress(bench: "Bench") -> None:
    row = await bench.reload(await bench.start(await bench.enqueue()))
    async with Redis(unix_socket_path="/nonexistent/valkey.sock") as redis:
        absent = QueueClient(redis, deadline=timedelta(milliseconds=300))
        assert await latest_progress(absent, [row]) == {}
