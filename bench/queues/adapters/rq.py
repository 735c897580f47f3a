"""RQ, a pool of two workers.

- The default worker forks for each job, which its documentation recommends for production.
- Results are not kept (`result_ttl` 0), as with the others.
- A dead worker's jobs are looked for every ten minutes, and fail unless they have retries: they do.
- Bulk enqueue: `enqueue_many`, which sends a batch in one pipeline.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis import Redis
from rq import Queue, Retry

from queues.adapter import HOLD, NAP, PROCESSES, Adapter, Producer, Program, program, valkey_url
from queues.ledger import record

BATCH = 5_000
LIMIT = int(HOLD * 2)


def noop(index: int) -> None:
    record(index)


def nap(index: int) -> None:
    time.sleep(NAP)
    record(index)


def hold(index: int) -> None:
    record(index)
    time.sleep(HOLD)


JOBS = {"noop": noop, "nap": nap, "hold": hold}


def programs() -> list[Program]:
    options = ["--num-workers", str(PROCESSES), "--url", valkey_url(), "-l", "WARNING"]
    return [Program([program("rq"), "worker-pool", *options, "default"])]


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    with Redis.from_url(valkey_url()) as client:
        queue = Queue(connection=client)

        async def enqueue(kind: str, index: int) -> float:
            queue.enqueue(JOBS[kind], index, result_ttl=0, job_timeout=LIMIT, retry=Retry(max=3))
            return time.monotonic()

        async def enqueue_many(kind: str, indexes: range) -> None:
            how = {"result_ttl": 0, "timeout": LIMIT, "retry": Retry(max=3)}
            for start in range(0, len(indexes), BATCH):
                batch = indexes[start : start + BATCH]
                queue.enqueue_many([Queue.prepare_data(JOBS[kind], (i,), **how) for i in batch])

        client.ping()
        yield Producer(enqueue, enqueue_many)


ADAPTER = Adapter(programs, producer)
