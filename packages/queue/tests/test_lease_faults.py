"""A worker whose words to Valkey, or whose answers from it, get lost: nothing is lost by it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis

from jangada.local.valkey import EmbeddedValkey
from jangada.testing import PATIENCE, eventually
from jangada_queue.client import QueueClient
from jangada_queue.leases.client import kick
from jangada_queue.leases.worker import LeaseTimes, LeaseWorker, WorkerPlan
from jangada_queue.messages import Offer

pytestmark = pytest.mark.anyio

QUEUE = "mail"
LEASE = timedelta(seconds=10)
OFTEN = timedelta(milliseconds=100)
DEADLINE = timedelta(milliseconds=500)


@pytest.fixture
def valkey(servers_folder: Path, tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(servers_folder / f"faulty-{tmp_path.name}"[:24], durable=False) as server:
        yield server


@asynccontextmanager
async def working(url: str) -> AsyncIterator[LeaseWorker]:
    times = LeaseTimes(lease=LEASE, renew_every=OFTEN, sweep_every=OFTEN)
    plan = WorkerPlan(url, {}, (QUEUE,), lambda: ["note"], "pod", "1", 9, times, most_losses=3)
    async with Redis.from_url(url) as redis:
        worker = LeaseWorker(QueueClient(redis, deadline=DEADLINE), plan)
        await worker.start()
        try:
            yield worker
        finally:
            await worker.close(within=1)


async def enqueue(worker: LeaseWorker, *keys: str) -> None:
    for key in keys:
        await kick(worker.client, QUEUE, Offer(key, "note", b""))


async def test_what_a_lost_answer_brought_is_delivered(
    valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A claim that the server carries out when nobody waits for its answer any more."""
    async with working(valkey.url) as worker:
        await enqueue(worker, "a", "b")
        (first,) = await worker.source.take(1)
        valkey.child.send(signal.SIGSTOP)
        try:
            taking = asyncio.create_task(worker.source.take(1))
            await eventually(lambda: "nothing is claimed for now" in caplog.text)
        finally:
            valkey.child.send(signal.SIGCONT)
        (second,) = await asyncio.wait_for(taking, PATIENCE)
        assert [each.claim.key for each in (first, second)] == ["a", "b"]
        # Handed on without having been begun: that is no loss of a lease.
        assert second.claim.losses == 0
        await worker.ledger.acknowledge(first)
        await worker.ledger.acknowledge(second)
        depth = await worker.client.depth(QUEUE)
        assert (depth.waiting, depth.claimed) == (0, 0)


async def test_what_is_held_stays_held(valkey: EmbeddedValkey) -> None:
    """However often leases are renewed, and whatever else is claimed and ends meanwhile."""
    async with working(valkey.url) as worker:
        await enqueue(worker, "kept")
        (kept,) = await worker.source.take(1)
        for number in range(50):
            await enqueue(worker, f"passing {number}")
            (passing,) = await worker.source.take(1)
            assert passing.claim.key == f"passing {number}"
            await worker.ledger.acknowledge(passing)
            await asyncio.sleep(0.02)  # allow sleep: some renewals pass
        assert worker.ledger.deliveries == {kept}
        assert (await worker.client.depth(QUEUE)).claimed == 1


async def test_an_acknowledgement_waits_for_a_server_that_takes_no_writes(
    valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(valkey.url) as worker, Redis.from_url(valkey.url) as redis:
        await enqueue(worker, "a", "b")
        held = await worker.source.take(2)
        await redis.config_set("min-replicas-to-write", 1)
        telling = [asyncio.create_task(worker.ledger.acknowledge(each)) for each in held]
        await eventually(lambda: "acknowledgements wait for Valkey" in caplog.text)
        await redis.config_set("min-replicas-to-write", 0)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*telling)
        assert (await worker.client.depth(QUEUE)).claimed == 0
