"""SIGTERM: nothing new starts, what runs may end, and what can't goes back."""

import signal
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jangada.cli import EXIT_UNAVAILABLE
from jangada.jobs.models import JobState
from jangada_queue.statistics import queue_stats
from jangada_queue.workers import flag_drain, is_empty, unflag_drain

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.unhurried]


async def left_workers(raft: "Raft") -> int:
    ((count,),) = await raft.execute("SELECT count(*) FROM workers")
    return int(count)


async def test_an_idle_worker_ends_at_once(raft: "Raft") -> None:
    await raft.dispatcher()
    worker = await raft.worker(processes=2)
    await raft.until_state(await raft.enqueue("ping"))
    assert await worker.stop() == 0
    assert await left_workers(raft) == 0
    (stats,) = await queue_stats(raft.runtime.queue, ["default"])
    assert stats.workers == []


async def test_a_draining_worker_ends_what_runs_and_starts_nothing(raft: "Raft", gate: str) -> None:
    await raft.dispatcher()
    worker = await raft.worker(slots=1)
    running = await raft.enqueue("test.effect", gate=gate)
    await raft.until_started(running)
    waiting = await raft.enqueue("test.effect")
    worker.send(signal.SIGTERM)
    await raft.until(lambda: is_draining(raft))
    await raft.open_gate(gate)
    assert await worker.ended() == 0
    assert (await raft.reload(running)).state == JobState.COMPLETED
    row = await raft.reload(waiting)
    assert (row.state, row.attempt) == (JobState.AVAILABLE, 0)


async def is_draining(raft: "Raft") -> bool:
    (stats,) = await queue_stats(raft.runtime.queue, ["default"])
    return any(worker.is_draining for worker in stats.workers)


async def test_a_flagged_pod_is_empty_once_its_last_job_has_ended(raft: "Raft", gate: str) -> None:
    """Each of its processes has to say so, after it has seen the flag."""
    await raft.dispatcher()
    await raft.worker(processes=2, pod_uid="pod-1")
    job = await raft.enqueue("test.effect", gate=gate)
    await raft.until_started(job)
    client, queues = raft.runtime.queue, ["default", "imports"]
    assert not await is_empty(client, queues, "pod-1")
    await flag_drain(client, queues, "pod-1", timedelta(minutes=1))
    await raft.until(lambda: is_draining(raft))
    assert not await is_empty(client, queues, "pod-1")
    await raft.open_gate(gate)
    await raft.until(lambda: is_empty(client, queues, "pod-1"))
    assert (await raft.reload(job)).state == JobState.COMPLETED
    await unflag_drain(client, queues, "pod-1")
    assert not await is_empty(client, queues, "pod-1")


async def test_what_outlives_the_drain_is_handed_back(raft: "Raft", gate: str) -> None:
    await raft.dispatcher()
    worker = await raft.worker(drain_timeout="0.2s")
    job = await raft.enqueue("test.effect", gate=gate)
    await raft.until_started(job)
    assert await worker.stop() == 0
    row = await raft.reload(job)
    assert (row.state, row.attempt, row.crashes) == (JobState.AVAILABLE, 1, 0)
    assert row.max_attempts == 21
    assert f"cancelled: {job.id}" in worker.log.read_text()
    assert await raft.effects(job) == []


async def test_a_second_sigterm_hands_back_at_once(raft: "Raft") -> None:
    await raft.dispatcher()
    worker = await raft.worker(drain_timeout="1h")
    job = await raft.enqueue("test.effect", gate="never")
    await raft.until_started(job)
    worker.send(signal.SIGTERM)
    await raft.until(lambda: is_draining(raft))
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0
    assert (await raft.reload(job)).state == JobState.AVAILABLE
    assert await left_workers(raft) == 0


async def test_a_thread_that_does_not_end_is_left_behind(raft: "Raft", tmp_path: Path) -> None:
    await raft.dispatcher()
    worker = await raft.worker(drain_timeout="0.2s")
    path = tmp_path / "gate"
    job = await raft.enqueue("test.threaded", path=str(path))

    async def has_begun() -> bool:
        return path.with_suffix(".started").exists()

    await raft.until(has_begun)
    assert await worker.stop() == 0
    row = await raft.reload(job)
    assert (row.state, row.crashes) == (JobState.AVAILABLE, 0)


async def test_a_child_that_is_told_to_end_alone_is_replaced(raft: "Raft", gate: str) -> None:
    await raft.dispatcher()
    worker = await raft.worker()
    job = await raft.enqueue("test.effect", gate=gate)
    ((_, pid),) = await raft.until_started(job)
    (child,) = worker.children
    assert child.pid == pid
    child.send_signal(signal.SIGTERM)
    await raft.open_gate(gate)
    row = await raft.until_state(job)
    assert (row.attempt, row.crashes) == (1, 0)
    later = await raft.enqueue("test.effect")
    ((_, successor),) = await raft.until_started(later)
    assert successor != pid


async def test_a_signal_to_all_processes_at_once_lets_jobs_end(raft: "Raft", gate: str) -> None:
    """As Ctrl-C on a terminal, or systemd: the process that forked the others must not go first."""
    await raft.dispatcher()
    worker = await raft.worker()
    job = await raft.enqueue("test.effect", gate=gate)
    await raft.until_started(job)
    worker.signal_family(signal.SIGTERM)
    await raft.open_gate(gate)
    row = await raft.until_state(job)
    assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 1, 0)
    assert await worker.ended() == 0


async def test_a_worker_whose_fork_server_was_killed_ends_and_says_so(raft: "Raft") -> None:
    worker = await raft.worker(processes=2)
    (server,) = worker.servers
    server.kill()
    assert await worker.ended() == EXIT_UNAVAILABLE
    assert "forks the worker processes was killed" in worker.log.read_text().splitlines()[-1]
    assert await left_workers(raft) == 0
