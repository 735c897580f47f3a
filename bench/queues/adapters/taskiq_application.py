"""The taskiq application that both brokers serve: the stock one and ours differ by one line."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskiq import AsyncBroker

from queues.adapter import HOLD, NAP, Adapter, Producer, Program
from queues.ledger import record

AT_ONCE = 50
"""Calls of `kiq` at once: there is no call that takes many."""


async def noop(index: int) -> None:
    record(index)


async def nap(index: int) -> None:
    await asyncio.sleep(NAP)
    record(index)


async def hold(index: int) -> None:
    record(index)
    await asyncio.sleep(HOLD)


def application(broker: AsyncBroker, command: list[str]) -> Adapter:
    tasks = {
        "noop": broker.register_task(noop, "noop"),
        "nap": broker.register_task(nap, "nap"),
        "hold": broker.register_task(hold, "hold"),
    }

    async def enqueue(kind: str, index: int) -> float:
        await tasks[kind].kiq(index)
        return time.monotonic()

    async def enqueue_many(kind: str, indexes: range) -> None:
        for start in range(0, len(indexes), AT_ONCE):
            batch = indexes[start : start + AT_ONCE]
            await asyncio.gather(*(tasks[kind].kiq(index) for index in batch))

    @asynccontextmanager
    async def producer() -> AsyncIterator[Producer]:
        await broker.startup()
        try:
            yield Producer(enqueue, enqueue_many)
        finally:
            await broker.shutdown()

    return Adapter(lambda: [Program(command)], producer)
