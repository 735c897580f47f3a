"""Worker processes of one machine follow the queues, and none is ended that runs something."""

from typing import TYPE_CHECKING, Any

import pytest

from jangada.jobs.models import JobState
from jangada_queue.pools import PoolStatus, read_pools
from jangada_queue.statistics import queue_stats
from jangada_queue.workers import WorkerReport

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.unhurried]

FOLLOWING: dict[str, Any] = {"min_processes": 0, "start_within": "1s", "scale_down_after": "1s"}


async def workers(raft: "Raft") -> list[WorkerReport]:
    (stats,) = await queue_stats(raft.runtime.queue, ["default"])
    return stats.workers


async def pool(raft: "Raft") -> PoolStatus:
    async def told() -> PoolStatus | None:
        return next(iter(await read_pools(raft.runtime.queue)), None)

    found: PoolStatus = await raft.until(told)
    return found


async def test_processes_come_with_the_jobs_and_go_afterwards(raft: "Raft", gate: str) -> None:
    await raft.dispatcher()
    await raft.worker(processes=2, slots=1, **FOLLOWING)

    async def has(replicas: int) -> bool:
        return (await pool(raft)).replicas == replicas and len(await workers(raft)) == replicas

    await raft.until(lambda: has(0))
    assert (await pool(raft)).why == "Idle"

    await raft.until_state(await raft.enqueue("ping"))
    jobs = [await raft.enqueue("test.effect", gate=gate) for _ in range(2)]
    for job in jobs:
        await raft.until_started(job)
    await raft.until(lambda: has(2))

    await raft.open_gate(gate)
    for job in jobs:
        await raft.until_state(job)
    await raft.until(lambda: has(0))
    assert {(await raft.reload(job)).crashes for job in jobs} == {0}


async def test_a_process_that_runs_something_is_not_ended(raft: "Raft", gate: str) -> None:
    await raft.dispatcher()
    await raft.worker(processes=2, slots=1, **FOLLOWING)
    long = await raft.enqueue("test.effect", gate=gate)
    await raft.until_started(long)
    short = await raft.enqueue("ping")
    await raft.until_state(short)

    async def is_alone() -> bool:
        (only, *others) = await workers(raft)
        return not others and only.busy == 1

    await raft.until(is_alone)
    await raft.open_gate(gate)
    await raft.until_state(long)
    row = await raft.reload(long)
    assert (row.state, row.attempt) == (JobState.COMPLETED, 1)


async def test_a_pool_ends_in_order_with_its_worker(raft: "Raft", gate: str) -> None:
    await raft.dispatcher()
    worker = await raft.worker(processes=2, slots=1, min_processes=1)
    job = await raft.enqueue("test.effect", gate=gate)
    await raft.until_started(job)
    await raft.open_gate(gate)
    assert await worker.stop() == 0
    assert (await raft.reload(job)).state == JobState.COMPLETED
    assert await workers(raft) == []
