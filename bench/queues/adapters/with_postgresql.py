"""Ours with PostgreSQL: `jangada worker` with two processes, and one `jangada dispatcher`.

- 100 slots a process, as the other async contestants, where handlers need no session. Where they
  do, as many slots as pooled connections: 20, as the protocol's page says.
- Bulk enqueue: `enqueue` for each job, 5,000 in one transaction.
"""

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
from sqlalchemy import event

from jangada.config import load_settings
from jangada.jobs import service
from jangada.migrations import run as migrations
from jangada.runtime import open_runtime
from queues.adapter import Adapter, Producer, Program, postgres_url
from queues.adapters.platform_jobs import KINDS

TENANT = UUID(int=1)
BATCH = 5_000
NEW_TENANT = """
    INSERT INTO tenants (id, name, kind) VALUES (%s, 'Bench', 'personal') ON CONFLICT DO NOTHING
"""


def programs() -> list[Program]:
    command = [sys.executable, "-m", "jangada"]
    return [Program([*command, "worker"]), Program([*command, "dispatcher"], is_worker=False)]


def prepare() -> None:
    migrations.upgrade(load_settings().database)
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS effects (job bigint)")
        connection.execute("GRANT ALL ON effects TO PUBLIC")
        connection.execute("TRUNCATE jobs, workers, effects CASCADE")
        connection.execute(NEW_TENANT, [TENANT])


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    async with open_runtime(load_settings()) as runtime:

        async def enqueue(kind: str, index: int) -> float:
            """In for certain is a job from the commit on, not when the wake has been sent."""
            committed: list[float] = []
            async with runtime.database.transaction(TENANT) as session:
                event.listen(
                    session.sync_session,
                    "after_commit",
                    lambda _: committed.append(time.monotonic()),
                )
                job = KINDS[kind](index=index)
                await service.enqueue(session, job, tenant_id=TENANT)
            return committed[0]

        async def enqueue_many(kind: str, indexes: range) -> None:
            for start in range(0, len(indexes), BATCH):
                jobs = [KINDS[kind](index=index) for index in indexes[start : start + BATCH]]
                async with runtime.database.transaction(TENANT) as session:
                    await service.enqueue_many(session, jobs, tenant_id=TENANT)

        async with runtime.database.read(TENANT):
            pass
        yield Producer(enqueue, enqueue_many)


ADAPTER = Adapter(programs, producer, prepare)
