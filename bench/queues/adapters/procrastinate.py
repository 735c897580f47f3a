"""procrastinate, two processes on PostgreSQL.

- Concurrency 20 a process, with a pool that grows as large: it takes jobs one by one, and more at
  once make it no faster. LISTEN/NOTIFY is on, as by default. Finished jobs stay, as by default and
  as ours do.
- Stalled jobs come back by the periodic task of its guide "Retry stalled jobs", every ten minutes.
- Bulk enqueue: `batch_defer_async`, 5,000 at once.
- The kind `insert` has a transaction of its own on a connection of its own pool.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from procrastinate import App, PsycopgConnector
from psycopg_pool import AsyncConnectionPool

from queues.adapter import HOLD, NAP, PROCESSES, Adapter, Producer, Program, postgres_url, program
from queues.ledger import record

BATCH, CONCURRENCY = 5_000, 20
app = App(connector=PsycopgConnector(conninfo=postgres_url(), max_size=CONCURRENCY))
_pools: dict[str, AsyncConnectionPool] = {}


@app.task(name="noop")
async def noop(index: int) -> None:
    record(index)


@app.task(name="nap")
async def nap(index: int) -> None:
    await asyncio.sleep(NAP)
    record(index)


@app.task(name="hold")
async def hold(index: int) -> None:
    record(index)
    await asyncio.sleep(HOLD)


@app.task(name="insert")
async def insert(index: int) -> None:
    async with (await _pool()).connection() as connection:
        await connection.execute("INSERT INTO effects (job) VALUES (%s)", [index])
    record(index)


@app.periodic(cron="*/10 * * * *")
@app.task(queueing_lock="retry_stalled_jobs")
async def retry_stalled_jobs(timestamp: int) -> None:
    del timestamp
    for job in await app.job_manager.get_stalled_jobs():
        await app.job_manager.retry_job(job)


async def _pool() -> AsyncConnectionPool:
    if "pool" not in _pools:
        _pools["pool"] = AsyncConnectionPool(postgres_url(), open=False, max_size=CONCURRENCY)
        await _pools["pool"].open()
    return _pools["pool"]


TASKS = {"noop": noop, "nap": nap, "hold": hold, "insert": insert}


def programs() -> list[Program]:
    options = ["--log-level", "warning", "worker", "--concurrency", str(CONCURRENCY)]
    command = [program("procrastinate"), "--app", f"{__name__}.app", *options]
    return [Program(command) for _ in range(PROCESSES)]


def prepare() -> None:
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        exists = connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone()
        if exists == (None,):
            connection.execute("CREATE TABLE effects (job bigint)")
            connection.execute(app.schema_manager.get_schema().encode())
        connection.execute("TRUNCATE procrastinate_jobs, procrastinate_workers, effects CASCADE")


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    async def enqueue(kind: str, index: int) -> float:
        await TASKS[kind].defer_async(index=index)
        return time.monotonic()

    async def enqueue_many(kind: str, indexes: range) -> None:
        for start in range(0, len(indexes), BATCH):
            batch = indexes[start : start + BATCH]
            await TASKS[kind].batch_defer_async(*({"index": index} for index in batch))

    async with app.open_async():
        yield Producer(enqueue, enqueue_many)


ADAPTER = Adapter(programs, producer, prepare)
