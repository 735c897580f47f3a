"""A pod may be removed when it is provably empty, and not a moment earlier."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from jangada_queue import workers
from jangada_queue.client import QueueClient
from jangada_queue.messages import Offer
from jangada_queue.workers import RunningWork, WorkerReport

pytestmark = pytest.mark.anyio

QUEUES = ["default", "imports"]
SOON = timedelta(seconds=30)


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[QueueClient]:
    async with Redis.from_url(valkey_url) as redis:
        yield QueueClient(redis)


async def flag(client: QueueClient, pod: str = "p1") -> str:
    """One that stands for long enough."""
    for queue in QUEUES:
        await client.redis.set(client.keys(queue).drain(pod), "token:1000")
    return "token:1000"


async def report(client: QueueClient, worker: str, *, drain: str, **more: Any) -> None:  # noqa: ANN401 - as the report's
    fields = {"queues": QUEUES, "kinds": ["mail"], "slots": 4, **more}
    said = WorkerReport(worker, "p1", "host", 42, "0.1.0", drain=drain, **fields)
    await workers.report(client, "p1", [said])


async def is_empty(client: QueueClient, pod: str = "p1") -> bool:
    return await workers.is_empty(client, QUEUES, pod)


async def test_a_pod_is_empty_when_all_its_processes_say_so(client: QueueClient) -> None:
    seen = await flag(client)
    await report(client, "w1", drain=seen)
    await report(client, "w2", drain="")
    assert not await is_empty(client)
    await report(client, "w2", drain=seen)
    assert await is_empty(client)


async def test_a_pod_without_a_flag_is_never_empty(client: QueueClient) -> None:
    await report(client, "w1", drain="token:1000")
    assert not await is_empty(client)


async def test_what_was_said_of_an_earlier_flag_does_not_count(client: QueueClient) -> None:
    await flag(client)
    await report(client, "w1", drain="token:999")
    assert not await is_empty(client)


@pytest.mark.parametrize(
    "more", [{"claiming": 1}, {"running": [RunningWork("a:1", "mail", 1.0)]}], ids=str
)
async def test_a_process_with_work_in_hand_is_not_empty(
    client: QueueClient, more: dict[str, Any]
) -> None:
    await report(client, "w1", drain=await flag(client), **more)
    assert not await is_empty(client)


async def test_a_claimed_message_counts_whatever_its_owner_says(client: QueueClient) -> None:
    await client.publish("default", [Offer("a", "mail", b"")], limit=8)
    await client.claim("default", "w1", 1, pod="p1")
    await report(client, "w1", drain=await flag(client))
    assert not await is_empty(client)


async def test_who_claims_before_its_first_report_counts(client: QueueClient) -> None:
    await client.publish("default", [Offer("a", "mail", b"")], limit=8)
    await client.ack("default", (await client.claim("default", "w1", 1, pod="p1")).claims)
    await flag(client)
    assert not await is_empty(client)


async def test_a_flagged_pod_that_never_claimed_is_empty(client: QueueClient) -> None:
    await flag(client)
    await report(client, "w9", drain="", queues=["another"])
    assert await is_empty(client)
    assert (await client.claim("default", "w1", 1, pod="p1")).is_draining


async def test_a_fresh_flag_proves_nothing(client: QueueClient) -> None:
    """A server that lost its data knows of no process until they report again."""
    await workers.flag_drain(client, QUEUES, "p1", SOON)
    assert not await is_empty(client)


async def test_a_renewed_flag_stays_the_same(client: QueueClient) -> None:
    first = await workers.flag_drain(client, ["default"], "p1", SOON)
    assert await workers.flag_drain(client, ["default"], "p1", SOON, flag=first) == first
    await client.redis.flushall()
    again = await workers.flag_drain(client, ["default"], "p1", SOON, flag=first)
    assert again.partition(":")[0] == first.partition(":")[0]
    assert await workers.flag_drain(client, ["default"], "p1", SOON) != again


async def test_all_queues_of_a_pod_have_the_same_flag(client: QueueClient) -> None:
    """A process says once which flag it has seen."""
    seen = await workers.flag_drain(client, QUEUES, "p1", SOON)
    flags = [await client.redis.get(client.keys(queue).drain("p1")) for queue in QUEUES]
    assert flags == [seen.encode()] * 2
    await client.redis.delete(client.keys("imports").drain("p1"))
    assert await workers.flag_drain(client, QUEUES, "p1", SOON, flag=seen) == seen
    assert await client.redis.get(client.keys("imports").drain("p1")) == seen.encode()


async def test_who_fell_silent_counts_unless_no_process_is_that_old(client: QueueClient) -> None:
    """As in a container that was killed as a whole and started anew."""
    old = RunningWork("a:1", "mail", 1.0)
    await report(client, "w1", drain="", running=[old])
    for queue in QUEUES:
        await client.redis.zincrby(client.keys(queue).beats, -20_000, "w1")
    seen = await flag(client)
    await report(client, "w2", drain=seen)
    assert not await is_empty(client)

    async def is_empty_since(seconds: float) -> bool:
        alive_for = timedelta(seconds=seconds)
        return await workers.is_empty(client, QUEUES, "p1", alive_for=alive_for)

    assert not await is_empty_since(600)
    assert await is_empty_since(15)
    await report(client, "w2", drain=seen, running=[old])
    assert not await is_empty_since(15)


async def test_other_pods_do_not_count(client: QueueClient) -> None:
    seen = await flag(client, "p2")
    await report(client, "w1", drain=seen, running=[RunningWork("p2:1", "mail", 1.0)])
    assert await is_empty(client, "p2")
