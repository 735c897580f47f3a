"""COPY into a table identical to `jobs` but for policies: a yardstick.

Only for bulk enqueue: nothing takes these rows. The rows are what `enqueue` writes.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from jangada.config import load_settings
from jangada.db import new_id
from jangada.migrations import run as migrations
from queues.adapter import Adapter, Producer, postgres_url
from queues.adapters.with_postgresql import BATCH, TENANT

CREATE = """
    CREATE TABLE IF NOT EXISTS plain_jobs
        (LIKE jobs INCLUDING ALL, FOREIGN KEY (tenant_id) REFERENCES tenants ON DELETE CASCADE)
"""
COPY = """
    COPY plain_jobs (tenant_id, id, kind, queue, state, priority, args, max_attempts)
    FROM STDIN
"""


def prepare() -> None:
    migrations.upgrade(load_settings().database)
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        connection.execute(CREATE)
        connection.execute("TRUNCATE plain_jobs")


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    async with await psycopg.AsyncConnection.connect(postgres_url()) as connection:

        async def enqueue_many(kind: str, indexes: range) -> None:
            for start in range(0, len(indexes), BATCH):
                async with connection.cursor().copy(COPY) as copy:
                    for index in indexes[start : start + BATCH]:
                        args = json.dumps({"index": index})
                        head = (TENANT, new_id(), f"bench.{kind}", "default", "available", 2)
                        await copy.write_row((*head, args, 20))
                await connection.commit()

        async def enqueue(kind: str, index: int) -> float:
            raise NotImplementedError(f"{kind} {index}: a yardstick of bulk enqueue only")

        yield Producer(enqueue, enqueue_many)


ADAPTER = Adapter(list, producer, prepare)
