"""Celery, prefork.

- `acks_late`, without which a killed worker loses what it runs; results are ignored.
- Prefetch multiplier 1, as Celery's guide "Optimizing" recommends together with `acks_late`: a
  process reserves one job, so that none waits behind a busy neighbour. One process per core.
- Visibility timeout: the default of an hour. Below the longest job it would run jobs twice.
- Bulk enqueue: one publisher for all of a batch; there is no call that takes many.
"""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from celery import Celery

from queues.adapter import HOLD, NAP, PROCESSES, Adapter, Producer, Program, program, valkey_url
from queues.ledger import record

app = Celery("bench", broker=valkey_url().replace("unix://", "redis+socket://").split("?")[0])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop(index: int) -> None:
    record(index)


@app.task(name="nap")
def nap(index: int) -> None:
    time.sleep(NAP)
    record(index)


@app.task(name="hold")
def hold(index: int) -> None:
    record(index)
    time.sleep(HOLD)


TASKS = {"noop": noop, "nap": nap, "hold": hold}


def programs() -> list[Program]:
    name = f"bench-{uuid.uuid4().hex[:8]}@%h"
    options = ["worker", "--concurrency", str(PROCESSES), "--loglevel", "WARNING", "-n", name]
    return [Program([program("celery"), "-A", __name__, *options])]


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    with app.producer_or_acquire() as publisher:

        async def enqueue(kind: str, index: int) -> float:
            TASKS[kind].apply_async((index,), producer=publisher)
            return time.monotonic()

        async def enqueue_many(kind: str, indexes: range) -> None:
            task = TASKS[kind]
            for index in indexes:
                task.apply_async((index,), producer=publisher)

        yield Producer(enqueue, enqueue_many)


ADAPTER = Adapter(programs, producer)
