"""dramatiq on Redis, with its defaults.

- Two processes of 8 threads, which is its own default on two cores; prefetch two a thread.
- It acknowledges after the run; a dead worker's messages come back by the maintenance that live
  workers do on one command in a thousand, for workers silent for a minute.
- The Prometheus middleware, which opens ports, is no default any more; retries stay on.
- Bulk enqueue: message by message; there is no call that takes many.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from queues.adapter import HOLD, NAP, PROCESSES, Adapter, Producer, Program, program, valkey_url
from queues.ledger import record

broker = RedisBroker(url=valkey_url())
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(index: int) -> None:
    record(index)


@dramatiq.actor
def nap(index: int) -> None:
    time.sleep(NAP)
    record(index)


@dramatiq.actor(time_limit=int(HOLD * 2000))
def hold(index: int) -> None:
    record(index)
    time.sleep(HOLD)


ACTORS = {"noop": noop, "nap": nap, "hold": hold}


def programs() -> list[Program]:
    return [Program([program("dramatiq"), __name__, "--processes", str(PROCESSES)])]


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    async def enqueue(kind: str, index: int) -> float:
        ACTORS[kind].send(index)
        return time.monotonic()

    async def enqueue_many(kind: str, indexes: range) -> None:
        actor = ACTORS[kind]
        for index in indexes:
            actor.send(index)

    broker.client.ping()
    yield Producer(enqueue, enqueue_many)


ADAPTER = Adapter(programs, producer)
