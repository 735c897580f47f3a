"""Valkey or PostgreSQL are absent for a while: nothing is lost, nothing runs twice, nobody dies."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import SecretStr
from redis import Redis

from jangada.config import DatabaseSettings, Settings, ValkeySettings
from jangada.db import new_id
from jangada.jobs.models import JobState
from jangada.jobs_settings import JobsSettings
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey
from jangada.migrations import run
from jangada.scopes import system_scope
from jangada.testing import PATIENCE, TEMPLATE

if TYPE_CHECKING:
    from services.worker.tests.conftest import Program, Raft

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

RARE_BEATS = JobsSettings(beat_interval=timedelta(minutes=5), worker_timeout=timedelta(minutes=15))


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
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        answer = await client.get(f"{program.management_url}/health/ready")
    assert answer.status_code == 200
    found: list[str] = answer.json()["degraded"]
    return found


async def until_degraded(raft: "Raft", program: "Program", *names: str) -> None:
    async def is_so() -> bool:
        return await degraded(program) == list(names)

    await raft.until(is_so)


@contextmanager
def stopped(valkey: EmbeddedValkey) -> Iterator[None]:
    valkey.stop()
    yield
    valkey.start()


@contextmanager
def without_replicas(valkey: EmbeddedValkey) -> Iterator[None]:
    """It answers, and takes no writes: as one whose disk is full."""
    with Redis.from_url(valkey.url) as redis:
        redis.config_set("min-replicas-to-write", 1)
        yield
        redis.config_set("min-replicas-to-write", 0)


@contextmanager
def demoted(valkey: EmbeddedValkey) -> Iterator[None]:
    """A failover: who waits for work at that moment is told that it isn't the primary any more."""
    with Redis.from_url(valkey.url) as redis:
        assert any(redis.info("clients")["blocked_clients"] for _ in range(100_000))
        redis.replicaof("127.0.0.1", "1")
        yield
        redis.replicaof("NO", "ONE")


@pytest.mark.parametrize("absent", [stopped, without_replicas, demoted])
async def test_without_valkey_what_runs_ends_and_the_rest_waits(
    raft: "Raft",
    worker: "Program",
    own_valkey: EmbeddedValkey,
    gate: str,
    *,
    absent: Callable[[EmbeddedValkey], AbstractContextManager[None]],
) -> None:
    running = await raft.enqueue("test.effect", gate=gate)
    ((_, pid),) = await raft.until_started(running)
    with absent(own_valkey):
        waiting = await raft.enqueue("test.effect")
        await until_degraded(raft, worker, "valkey")
        await raft.open_gate(gate)
        row = await raft.until_state(running)
        assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 1, 0)
        assert (await raft.reload(waiting)).state == JobState.AVAILABLE
    assert (await raft.until_state(waiting)).state == JobState.COMPLETED
    await until_degraded(raft, worker)
    assert [child.pid for child in worker.children] == [pid]


async def knows_queues(program: "Program") -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        answer = await client.get(f"{program.management_url}/metrics")
    return 'jangada_queue_oldest_wait_seconds{queue="default"}' in answer.text


async def test_a_dispatcher_tells_no_figures_that_it_cannot_know(
    raft: "Raft", own_valkey: EmbeddedValkey, own_postgres: EmbeddedPostgres
) -> None:
    """Else the last ones would say that nothing waits for as long as a server is away."""
    dispatcher = await raft.dispatcher_process()

    async def is_blind() -> bool:
        return not await knows_queues(dispatcher)

    for server in (own_valkey, own_postgres):
        await raft.until(lambda: knows_queues(dispatcher))
        server.stop()
        await raft.until(is_blind)
        server.start()
    assert await raft.until(lambda: knows_queues(dispatcher))


async def test_a_running_job_is_cancelled_without_valkey(
    raft: "Raft", own_valkey: EmbeddedValkey
) -> None:
    """And long before the next beat: within two seconds, with the second that it has to end."""
    raft.settings = raft.settings.model_copy(update={"jobs": RARE_BEATS})
    raft.runtime = replace(raft.runtime, settings=raft.settings)
    await raft.dispatcher()
    await raft.worker()
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


async def freeze_the_beat(raft: "Raft") -> int:
    """Stop the server's end of the connection that beats, in the midst of a beat: its pid."""
    held = "SELECT id FROM workers FOR UPDATE"
    beating = """
        SELECT pid FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%SET beat_at%'"""
    async with raft.runtime.database.direct() as holder, system_scope(holder, "test"):
        await holder.execute(held)
        ((pid,),) = await raft.until(lambda: raft.execute(beating))
        os.kill(pid, signal.SIGSTOP)
    frozen: int = pid
    return frozen


@pytest.mark.unhurried
async def test_a_connection_that_dies_without_a_word_costs_a_beat_at_most(
    raft: "Raft", gate: str
) -> None:
    """As behind a firewall that forgot it: nothing is refused, nothing is answered."""
    await raft.dispatcher()
    await raft.worker()
    job = await raft.enqueue("test.effect", gate=gate)
    await raft.until_started(job)
    frozen = await freeze_the_beat(raft)
    try:
        await raft.until_idle_for(raft.settings.jobs.worker_timeout * 1.5)
        await raft.open_gate(gate)
        row = await raft.until_state(job)
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert (row.state, row.attempt, row.crashes) == (JobState.COMPLETED, 1, 0)


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
