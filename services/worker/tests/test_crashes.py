"""Processes die and freeze at bad moments; jobs run again, and their effects happen once."""

import os
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from jangada.jobs.delivery.workers import bury
from jangada.jobs.models import JobState
from jangada.testing import PATIENCE

if TYPE_CHECKING:
    from services.worker.tests.conftest import Program, Raft

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

SEVERAL_LEASES = timedelta(seconds=8)


async def until_gone(raft: "Raft", pids: list[int]) -> None:
    async def gone() -> bool:
        return not any(psutil.pid_exists(pid) and not is_zombie(pid) for pid in pids)

    await raft.until(gone)


def is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until_failed(fleet: "Raft", *failed: str) -> None:
    """Wait until the worker is ready, or says why not."""
    url = f"{fleet.programs[0].management_url}/health/ready"

    async def are_so() -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            answer = await client.get(url)
        said: list[str] = answer.json().get("failed", [])
        assert answer.status_code == (503 if said else 200)
        return said == list(failed)

    await fleet.until(are_so)


async def test_the_jobs_of_a_killed_worker_run_again(raft: "Raft", gate: str) -> None:
    """Its children die with it, even one that holds the interpreter lock."""
    await raft.dispatcher()
    doomed = await raft.worker(processes=2)
    jobs = [await raft.enqueue("test.effect", gate=gate) for _ in range(4)]
    for job in jobs:
        await raft.until_started(job)
    await raft.until_started(await raft.enqueue("test.hold-interpreter", seconds=30))
    family = doomed.family
    doomed.send(signal.SIGKILL)
    await doomed.ended()
    await until_gone(raft, family)
    await raft.worker(slots=8)
    for job in jobs:
        await raft.until_started(job, 2)
    await raft.open_gate(gate)
    for job in jobs:
        row = await raft.until_state(job)
        assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 2, 1)
        assert await raft.effects(job) == [2]


async def test_a_killed_child_is_replaced_and_its_jobs_run_again(fleet: "Raft", gate: str) -> None:
    job = await fleet.enqueue("test.effect", gate=gate)
    ((_, pid),) = await fleet.until_started(job)
    os.kill(pid, signal.SIGKILL)
    await fleet.until_started(job, 2)
    await until_failed(fleet)
    await fleet.open_gate(gate)
    row = await fleet.until_state(job)
    assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 2, 1)


async def test_a_long_job_is_not_started_twice(fleet: "Raft", gate: str) -> None:
    job = await fleet.enqueue("test.effect", gate=gate)
    await fleet.until_started(job)
    await fleet.until_idle_for(SEVERAL_LEASES)
    await fleet.open_gate(gate)
    row = await fleet.until_state(job)
    assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 1, 0)
    assert await fleet.effects(job) == [1]


async def test_a_job_that_holds_the_interpreter_lock_keeps_its_lease(fleet: "Raft") -> None:
    job = await fleet.enqueue("test.hold-interpreter", seconds=3)
    row = await fleet.until_state(job)
    assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 1, 0)
    assert len(await fleet.signs(job)) == 1


async def test_a_job_that_never_gives_the_interpreter_back_loses_its_process(
    fleet: "Raft",
) -> None:
    """Long after its timeout, which nothing in the process can hold it to."""
    job = await fleet.enqueue("test.hog")
    row = await fleet.until_state(job)
    assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 2, 1)
    assert [(error["code"], error["attempt"]) for error in row.errors] == [("job.crashed", 1)]
    log = fleet.programs[0].log.read_text()
    assert f"test.hog {job.id}" in log


async def test_a_process_that_keeps_what_was_handed_on_is_replaced(raft: "Raft") -> None:
    """It holds the interpreter, so it doesn't hear that it was declared dead."""
    await raft.dispatcher()
    worker = await raft.worker()
    job = await raft.enqueue("test.hold-interpreter", seconds=600)
    ((_, mute),) = await raft.until_started(job)
    ((declared_dead,),) = await raft.execute("SELECT id FROM workers")
    async with raft.runtime.database.direct() as connection:
        await bury(connection, [declared_dead])
    row = await raft.until_state(job)
    assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 2, 1)
    assert mute not in [child.pid for child in worker.children]


async def freeze(raft: "Raft", worker: "Program") -> None:
    for pid in worker.family:
        os.kill(pid, signal.SIGSTOP)

    async def frozen() -> bool:
        return all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in worker.family)

    await raft.until(frozen)


async def test_a_worker_that_wakes_from_a_long_sleep_commits_nothing(
    raft: "Raft", gate: str
) -> None:
    """It was declared dead meanwhile; it gives its jobs up and works on under a new name."""
    await raft.dispatcher()
    zombie = await raft.worker()
    job = await raft.enqueue("test.effect", gate=gate)
    await raft.until_started(job)
    await freeze(raft, zombie)
    other = await raft.worker()
    await raft.until_started(job, 2)
    await raft.open_gate(gate)
    row = await raft.until_state(job)
    assert (row.state, row.attempt) == (JobState.COMPLETED, 2)
    assert await other.stop() == 0
    zombie.signal_family(signal.SIGCONT)
    later = await raft.enqueue("test.effect")
    assert (await raft.until_state(later)).state == JobState.COMPLETED
    assert await raft.effects(job) == [2]
    assert (await raft.reload(job)).revision == row.revision


async def test_a_stopped_process_loses_its_jobs_though_its_parent_lives(
    raft: "Raft", gate: str
) -> None:
    await raft.dispatcher()
    worker = await raft.worker()
    job = await raft.enqueue("test.effect", gate=gate)
    ((_, pid),) = await raft.until_started(job)
    os.kill(pid, signal.SIGSTOP)
    other = await raft.worker()
    await raft.until_started(job, 2)
    await raft.open_gate(gate)
    row = await raft.until_state(job)
    assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 2, 1)
    assert await other.stop() == 0
    os.kill(pid, signal.SIGCONT)
    later = await raft.enqueue("test.effect")
    assert (await raft.until_state(later)).state == JobState.COMPLETED
    assert await raft.effects(job) == [2]
    assert [child.pid for child in worker.children] == [pid]


async def test_a_job_that_kills_its_process_alone_is_poison(fleet: "Raft", gate: str) -> None:
    """Its neighbours are innocent: they end well, however often their process dies with them."""
    poison = await fleet.enqueue("test.crash")
    innocent = await fleet.enqueue("test.effect", gate=gate)
    await fleet.until_crashed(poison, 2)
    await fleet.open_gate(gate)  # it starts alone from now on: after its neighbour
    row = await fleet.until_state(poison)
    assert (row.state, row.crashes) == (JobState.DISCARDED, 3)
    assert [error["code"] for error in row.errors] == ["job.crashed", "job.crashed", "job.poison"]
    row = await fleet.until_state(innocent)
    assert row.state == JobState.COMPLETED
    assert row.crashes <= 2
    assert await fleet.effects(innocent) == [row.attempt]


async def test_a_job_that_crashed_twice_may_still_end_well(fleet: "Raft") -> None:
    job = await fleet.enqueue("test.crash", times=2, max_attempts=1)
    row = await fleet.until_state(job)
    assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 3, 2)
    assert await fleet.effects(job) == [3]


async def test_a_process_that_exits_behind_our_back_has_crashed(fleet: "Raft") -> None:
    """Exit code 0 or not: it didn't hand its jobs back, so it might do so for ever."""
    job = await fleet.enqueue("test.leave", how="at once")
    row = await fleet.until_state(job)
    assert (row.state, row.crashes) == (JobState.DISCARDED, 3)
