"""The least that anybody could do on PostgreSQL: LISTEN/NOTIFY and SKIP LOCKED, in one loop.

No retries, no leases, one job at a time in one process: a yardstick for pick-up, not a rival. Jobs
are enqueued by a COPY into a table like `jobs` without policies: the yardstick of bulk enqueue.
"""

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from queues.adapter import Adapter, Producer, Program, postgres_url
from queues.ledger import record

BATCH = 5_000
TAKE = """
    DELETE FROM bare_jobs WHERE id = (
        SELECT id FROM bare_jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
    ) RETURNING job
"""


def work() -> None:
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        connection.execute("LISTEN bare_jobs")
        while True:
            while row := connection.execute(TAKE, prepare=True).fetchone():
                record(row[0])
            for _ in connection.notifies(timeout=1.0, stop_after=1):
                pass


def programs() -> list[Program]:
    return [Program([sys.executable, "-m", __name__])]


def prepare() -> None:
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        connection.execute("""
            CREATE TABLE IF NOT EXISTS bare_jobs (
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job bigint NOT NULL)""")
        connection.execute("TRUNCATE bare_jobs")


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    async with await psycopg.AsyncConnection.connect(postgres_url()) as connection:

        async def enqueue(_: str, index: int) -> float:
            await connection.execute("INSERT INTO bare_jobs (job) VALUES (%s)", [index])
            await connection.execute("NOTIFY bare_jobs")
            await connection.commit()
            return time.monotonic()

        async def enqueue_many(_: str, indexes: range) -> None:
            for index in indexes:
                await enqueue("", index)

        yield Producer(enqueue, enqueue_many)


ADAPTER = Adapter(programs, producer, prepare)

if __name__ == "__main__":
    work()
