"""A worker that starts while Valkey is absent waits for it, and ends when it is told to."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from taskiq.receiver import Receiver

from jangada.local.valkey import EmbeddedValkey
from jangada.testing import eventually
from jangada_queue.taskiq import LeasedReceiver, LeasedStreamBroker

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("receiver", [Receiver, LeasedReceiver])


@pytest.fixture
def valkey(servers_folder: Path, tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """One that was there, and is away."""
    server = EmbeddedValkey(servers_folder / f"away-{tmp_path.name}"[:24])
    with server:
        server.stop()
        yield server


@asynccontextmanager
async def working(broker: LeasedStreamBroker, receiver: type[Receiver]) -> AsyncIterator[None]:
    """A worker in this process; at the end it is stopped as taskiq's command does."""
    broker.is_worker_process = True
    finish = asyncio.Event()
    listening = asyncio.create_task(receiver(broker, max_async_tasks=2).listen(finish))
    try:
        yield
    finally:
        finish.set()
        await listening
        await broker.shutdown()


@BOTH
async def test_a_worker_without_valkey_ends_when_it_is_told_to(
    valkey: EmbeddedValkey, receiver: type[Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    broker = LeasedStreamBroker(valkey.url)
    async with asyncio.timeout(60), working(broker, receiver):
        await eventually(lambda: "starting without Valkey" in caplog.text)


@BOTH
async def test_a_worker_that_started_without_valkey_works_once_it_is_there(
    valkey: EmbeddedValkey, receiver: type[Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    broker, ran = LeasedStreamBroker(valkey.url), asyncio.Event()

    @broker.task
    async def run() -> None:
        ran.set()

    async with working(broker, receiver):
        await eventually(lambda: "starting without Valkey" in caplog.text)
        valkey.start()
        await run.kiq()
        await asyncio.wait_for(ran.wait(), 60)
