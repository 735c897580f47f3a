"""arq, two processes.

- 100 jobs a process at once, as the other async contestants; its default is 10, and the more it
  may run the more it reads with each poll. It polls every 0.5 s: the default, and no setting that
  its documentation advises to change.
- Results are not kept, as with the others.
- A dead worker's job runs again when its `in-progress` key expires: the job timeout (300 s) + 10 s.
- Bulk enqueue: concurrent calls of `enqueue_job`; there is no call that takes many.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from arq import create_pool
from arq.connections import RedisSettings

from queues.adapter import (
    HOLD,
    NAP,
    PROCESSES,
    SLOTS,
    Adapter,
    Producer,
    Program,
    program,
    valkey_url,
)
from queues.ledger import record

AT_ONCE = 50
SERVER = RedisSettings.from_dsn(valkey_url())


async def noop(_: dict[str, Any], index: int) -> None:
    record(index)


async def nap(_: dict[str, Any], index: int) -> None:
    await asyncio.sleep(NAP)
    record(index)


async def hold(_: dict[str, Any], index: int) -> None:
    record(index)
    await asyncio.sleep(HOLD)


class WorkerSettings:
    """What `arq` reads."""

    functions: ClassVar = [noop, nap, hold]
    redis_settings = SERVER
    max_jobs = SLOTS
    keep_result = 0
    log_results = False


def programs() -> list[Program]:
    command = [program("arq"), f"{__name__}.WorkerSettings"]
    return [Program(command) for _ in range(PROCESSES)]


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    pool = await create_pool(SERVER)

    async def enqueue(kind: str, index: int) -> float:
        await pool.enqueue_job(kind, index)
        return time.monotonic()

    async def enqueue_many(kind: str, indexes: range) -> None:
        for start in range(0, len(indexes), AT_ONCE):
            batch = indexes[start : start + AT_ONCE]
            await asyncio.gather(*(pool.enqueue_job(kind, index) for index in batch))

    await pool.ping()
    try:
        yield Producer(enqueue, enqueue_many)
    finally:
        await pool.aclose()


ADAPTER = Adapter(programs, producer)
