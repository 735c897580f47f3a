"""Valkey or PostgreSQL are absent for a while: nothing is lost, nothing runs twice, nobody dies."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import SecretStr

from jangada.config import DatabaseSettings, Settings, ValkeySettings
from jangada.db import new_id
from jangada.jobs.models import JobState
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey
from jangada.migrations import run
from jangada.testing import TEMPLATE

if TYPE_CHECKING:
    from services.worker.tests.conftest import Program, Raft

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


@pytest.fixture
def own_valkey(servers_folder: Path) -> Iterator[EmbeddedValkey]:
    """One that the test may stop."""
    with EmbeddedValkey(servers_folder / new_id().hex[-8:], durable=False) as server:
        yield server


@pytest.fixture(scope="module")
def own_postgres(servers_folder: Path) -> Iterator[EmbeddedPostgres]:
    """One that these tests may stop."""
    with EmbeddedPostgres(servers_folder / new_id().hex[-8:]) as server:
        server.create_database(TEMPLATE)
        run.upgrade(DatabaseSettings(url=SecretStr(server.database_url(TEMPLATE))))
        yield server


@pytest.fixture
def settings(
    settings: Settings, own_valkey: EmbeddedValkey, own_postgres: EmbeddedPostgres
) -> Settings:
    name = f"test_{new_id().hex}"
    own_postgres.create_database(name, template=TEMPLATE)
    return settings.model_copy(
        update={
            "valkey": ValkeySettings(
                url=SecretStr(own_valkey.url), command_timeout=timedelta(milliseconds=500)
            ),
            "database": DatabaseSettings(url=SecretStr(own_postgres.database_url(name))),
        }
    )


@pytest.fixture
async def worker(raft: "Raft") -> "Program":
    await raft.dispatcher()
    return await raft.worker()


async def degraded(program: "Program") -> list[str]:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{program.management_url}/health/ready")
    assert answer.status_code == 200
    found: list[str] = answer.json()["degraded"]
    return found


async def until_degraded(raft: "Raft", program: "Program", *names: str) -> None:
    async def is_so() -> bool:
        return await degraded(program) == list(names)

    await raft.until(is_so)


async def test_without_valkey_what_runs_ends_and_the_rest_waits(
    raft: "Raft", worker: "Program", own_valkey: EmbeddedValkey, gate: str
) -> None:
    running = await raft.enqueue("test.effect", gate=gate)
    ((_, pid),) = await raft.until_started(running)
    own_valkey.stop()
    waiting = await raft.enqueue("test.effect")
    await until_degraded(raft, worker, "valkey")
    await raft.open_gate(gate)
    row = await raft.until_state(running)
    assert (row.state, row.attempt) == (JobState.COMPLETED, 1)
    assert (await raft.reload(waiting)).state == JobState.AVAILABLE
    own_valkey.start()
    assert (await raft.until_state(waiting)).state == JobState.COMPLETED
    await until_degraded(raft, worker)
    assert [child.pid for child in worker.children] == [pid]


async def test_a_running_job_is_cancelled_without_valkey(
    raft: "Raft", worker: "Program", own_valkey: EmbeddedValkey
) -> None:
    job = await raft.enqueue("test.effect", gate="never")
    await raft.until_started(job)
    own_valkey.stop()
    await raft.cancel(job)
    assert (await raft.until_state(job)).state == JobState.CANCELLED


async def test_without_postgresql_nobody_dies_and_nothing_runs_twice(
    raft: "Raft", worker: "Program", own_postgres: EmbeddedPostgres, gate: str
) -> None:
    """It stays away for longer than a lease: who is silent then is not dead."""
    running = await raft.enqueue("test.threaded", path=str(raft.folder / gate))

    async def has_begun() -> bool:
        return (raft.folder / f"{gate}.started").exists()

    await raft.until(has_begun)
    family = worker.family
    own_postgres.stop()
    await until_degraded(raft, worker, "postgresql")
    (raft.folder / gate).touch()
    own_postgres.start()
    row = await raft.until_state(running)
    assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 1, 0)
    later = await raft.enqueue("test.effect")
    assert (await raft.until_state(later)).state == JobState.COMPLETED
    assert worker.family == family


async def test_a_lost_connection_costs_nothing(raft: "Raft", worker: "Program") -> None:
    jobs = []
    for _ in range(3):
        jobs += [await raft.enqueue("test.effect") for _ in range(5)]
        await raft.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        await raft.runtime.valkey.execute_command("CLIENT", "KILL", "TYPE", "NORMAL")
    for job in jobs:
        row = await raft.until_state(job)
        assert row.state == JobState.COMPLETED
        assert len(await raft.effects(job)) == 1


async def test_valkey_may_lose_everything_while_jobs_run(
    raft: "Raft", worker: "Program", gate: str
) -> None:
    jobs = [await raft.enqueue("test.effect", gate=gate) for _ in range(30)]
    await raft.until_started(jobs[0])
    await raft.runtime.valkey.flushall()
    await raft.open_gate(gate)
    for job in jobs:
        row = await raft.until_state(job)
        assert (row.state, row.attempt) == (JobState.COMPLETED, 1)
        assert await raft.effects(job) == [1]


async def test_a_worker_may_start_before_postgresql(
    raft: "Raft", own_postgres: EmbeddedPostgres, own_valkey: EmbeddedValkey
) -> None:
    own_postgres.stop()
    own_valkey.stop()
    await raft.dispatcher()
    worker = await raft.worker()
    await until_degraded(raft, worker, "postgresql", "valkey")
    own_postgres.start()
    own_valkey.start()
    job = await raft.enqueue("ping")
    assert (await raft.until_state(job)).state == JobState.COMPLETED
