"""Unknown kinds wait for a worker that knows them; what nobody can read is counted and dropped."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from jangada_queue.client import QueueClient
from jangada_queue.keys import PROTOCOL, Version
from jangada_queue.leases.client import kick, serve
from jangada_queue.messages import Offer
from jangada_queue.statistics import queue_stats

pytestmark = pytest.mark.anyio

QUEUE = "default"


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[QueueClient]:
    async with Redis.from_url(valkey_url) as redis:
        yield QueueClient(redis)


async def claim(client: QueueClient, *kinds: str, count: int = 8) -> list[str]:
    answer = await client.claim(QUEUE, "w1", count, pod="p1", kinds=kinds)
    return [message.key for message in answer.claims]


async def publish(client: QueueClient, *pairs: tuple[str, str]) -> None:
    await client.publish(QUEUE, [Offer(key, kind, b"{}") for key, kind in pairs], limit=100)


async def test_an_unknown_kind_is_parked_and_its_neighbours_are_not(client: QueueClient) -> None:
    await publish(client, ("a", "new"), ("b", "old"), ("c", "new"))
    assert await claim(client, "old") == ["b"]
    depth = await client.depth(QUEUE)
    assert (depth.waiting, depth.claimed, depth.parked, depth.window) == (0, 1, 2, 3)


async def test_a_parked_kind_goes_to_the_first_worker_that_knows_it(client: QueueClient) -> None:
    await publish(client, ("a", "new"), ("b", "new"))
    await claim(client, "old")
    assert await claim(client, "old") == []
    assert await claim(client, "old", "new") == ["a", "b"]
    assert (await client.depth(QUEUE)).parked == 0


async def test_no_more_is_unparked_than_is_taken(client: QueueClient) -> None:
    await publish(client, *((f"k{number}", "new") for number in range(5)))
    await claim(client, "old")
    assert await claim(client, "new", count=2) == ["k0", "k1"]
    assert (await client.depth(QUEUE)).parked == 3
    assert await claim(client, "new", count=9) == ["k2", "k3", "k4"]


async def test_parked_messages_are_not_published_again(client: QueueClient) -> None:
    await publish(client, ("a", "new"))
    await claim(client, "old")
    await publish(client, ("a", "new"))
    assert (await client.depth(QUEUE)).waiting == 0


async def test_a_parked_message_keeps_its_body(client: QueueClient) -> None:
    body = bytes(range(256))
    await client.publish(QUEUE, [Offer("a", "new", body)], limit=8)
    await claim(client, "old")
    answer = await client.claim(QUEUE, "w1", 1, pod="p1", kinds=["new"])
    assert [message.body for message in answer.claims] == [body]


async def test_a_worker_without_kinds_takes_all_of_its_version(client: QueueClient) -> None:
    await publish(client, ("a", "new"), ("b", "old"))
    await claim(client, "neither")
    assert sorted(await claim(client)) == ["a", "b"]


async def test_a_message_of_another_major_version_waits(client: QueueClient) -> None:
    await _raw(client, "v", f"{PROTOCOL.major + 1}.0", "key", "a", "kind", "mail", "body", "?")
    assert await claim(client) == []
    assert await claim(client, "mail") == []
    (stats,) = await queue_stats(client, [QUEUE])
    assert stats.parked == {f"{PROTOCOL.major + 1}:mail": 1}


async def test_a_message_of_a_newer_minor_version_is_taken(client: QueueClient) -> None:
    later = f"{PROTOCOL.major}.{PROTOCOL.minor + 1}"
    await _raw(client, "v", later, "key", "a", "kind", "mail", "body", "{}", "extra", "field")
    assert await claim(client, "mail") == ["a"]


async def test_what_nobody_can_read_is_dropped_and_counted(client: QueueClient) -> None:
    await _raw(client, "something", "else")
    await publish(client, ("a", "mail"))
    assert await claim(client, "mail") == ["a"]
    depth = await client.depth(QUEUE)
    assert (depth.unreadable_total, depth.waiting, depth.claimed) == (1, 0, 1)


async def test_clearing_the_window_forgets_what_is_parked(client: QueueClient) -> None:
    """Else the next round would publish it a second time, beside its parked twin."""
    await publish(client, ("a", "new"))
    await claim(client, "old")
    assert await client.clear_window(QUEUE) == 1
    await publish(client, ("a", "new"))
    assert await claim(client, "new") == ["a"]
    assert await claim(client, "new") == []


async def test_an_expired_message_of_a_parked_kind_is_forgotten(client: QueueClient) -> None:
    await publish(client, ("a", "new"))
    await claim(client, "old")
    await claim(client, "new")
    assert await client.expire(QUEUE, timedelta(0)) == ["a"]


@pytest.mark.parametrize(
    ("text", "version"), [("1.0", Version(1, 0)), ("2.17", Version(2, 17)), ("3", Version(3, 0))]
)
def test_a_version_is_read(text: str, version: Version) -> None:
    assert Version.parse(text) == version
    assert Version.parse(str(version)) == version


async def _raw(client: QueueClient, *fields: str) -> None:
    await client.redis.execute_command("XADD", client.keys(QUEUE).stream, "*", *fields)


async def test_what_no_living_worker_knows_is_forgotten_until_one_does(client: QueueClient) -> None:
    await publish(client, ("a", "removed"), ("b", "new"), ("c", "removed"))
    await claim(client, "old")
    assert await client.disown(QUEUE, ["old", "new"]) == 2
    depth = await client.depth(QUEUE)
    assert (depth.parked, depth.window) == (1, 1)
    await publish(client, ("a", "removed"), ("b", "new"))
    assert await claim(client, "old", "new", "removed") == ["b", "a"]


async def test_what_only_valkey_has_is_never_forgotten(client: QueueClient) -> None:
    await serve(client, [QUEUE])
    await kick(client, QUEUE, Offer("a", "removed", b"{}"))
    await claim(client, "old")
    assert await client.disown(QUEUE, ["old"]) == 0
    assert await claim(client, "removed") == ["a"]
