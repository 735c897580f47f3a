"""A message that is offered without a dispatcher: only where there is nothing to choose from."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from jangada_queue.client import QueueClient
from jangada_queue.messages import Offer
from jangada_queue.signals import tell

pytestmark = pytest.mark.anyio

QUEUE = "imports"
AT_ONCE = timedelta(milliseconds=10)


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[QueueClient]:
    async with Redis.from_url(valkey_url) as opened:
        yield QueueClient(opened)


def message(key: str) -> Offer:
    return Offer(key, "mail", f"body of {key}".encode())


async def is_dispatcher_wanted(client: QueueClient) -> bool:
    return await client.wait_for_dispatch([QUEUE], AT_ONCE) == QUEUE


async def claim(client: QueueClient, *kinds: str) -> list[Offer]:
    answer = await client.claim(QUEUE, "w1", 9, pod="p1", kinds=kinds)
    return [Offer(each.key, each.kind, each.body) for each in answer.claims]


async def test_where_nothing_waits_a_worker_is_woken_and_no_dispatcher(client: QueueClient) -> None:
    assert await client.offer(QUEUE, message("a"))
    assert not await is_dispatcher_wanted(client)
    assert await client.wait_for_work([QUEUE], AT_ONCE) == QUEUE
    assert await claim(client) == [message("a")]
    assert await client.offer(QUEUE, message("b"))
    depth = await client.depth(QUEUE)
    assert (depth.waiting, depth.claimed, depth.window, depth.published_total) == (1, 1, 2, 2)


async def test_where_something_waits_the_dispatcher_chooses(client: QueueClient) -> None:
    await client.publish(QUEUE, [message("a")], limit=16)
    assert not await client.offer(QUEUE, message("b"))
    assert await is_dispatcher_wanted(client)
    assert await claim(client) == [message("a")]


async def test_a_full_window_has_more_behind_it(client: QueueClient) -> None:
    """What it holds is claimed, and what waits in PostgreSQL has its turn first."""
    await client.publish(QUEUE, [message(key) for key in "abcd"], limit=4)
    answer = await client.claim(QUEUE, "w1", 1, pod="p1")
    assert answer.waiting == 3
    await client.redis.delete(client.keys(QUEUE).stream)
    assert not await client.offer(QUEUE, message("e"))
    assert await is_dispatcher_wanted(client)


async def test_beside_what_nobody_knows_the_dispatcher_chooses(client: QueueClient) -> None:
    assert await client.offer(QUEUE, message("a"))
    assert await claim(client, "other") == []
    assert not await client.offer(QUEUE, message("b"))
    assert await is_dispatcher_wanted(client)
    assert await claim(client, "mail") == [message("a")]


async def test_what_is_out_is_not_offered_twice(client: QueueClient) -> None:
    assert await client.offer(QUEUE, message("a"))
    assert await claim(client) == [message("a")]
    assert not await client.offer(QUEUE, message("a"))
    assert await claim(client) == []


async def test_what_a_dispatcher_was_asked_to_publish_goes_first(client: QueueClient) -> None:
    await tell(client, wake=[QUEUE])
    assert not await client.offer(QUEUE, message("a"))
    assert await is_dispatcher_wanted(client)
    assert await client.offer(QUEUE, message("a"))
