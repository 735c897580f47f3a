"""The steps of the protocol against a real Valkey."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from jangada_queue.client import QueueClient
from jangada_queue.connection import open_client
from jangada_queue.errors import QueueUnavailable
from jangada_queue.messages import Claim, Offer
from jangada_queue.signals import tell
from jangada_queue.workers import flag_drain, unflag_drain

pytestmark = pytest.mark.anyio

QUEUE = "imports"
SOON = timedelta(seconds=30)
AT_ONCE = timedelta(milliseconds=10)


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey_url) as opened:
        yield opened


@pytest.fixture
def client(redis: Redis) -> QueueClient:
    return QueueClient(redis)


def offers(*keys: str, kind: str = "mail") -> list[Offer]:
    return [Offer(key, kind, f"body of {key}".encode()) for key in keys]


async def claim(client: QueueClient, count: int, worker: str = "w1") -> list[str]:
    return [each.key for each in (await client.claim(QUEUE, worker, count, pod="p1")).claims]


async def claims(client: QueueClient, count: int, worker: str = "w1") -> tuple[Claim, ...]:
    return (await client.claim(QUEUE, worker, count, pod="p1")).claims


async def tokens(client: QueueClient) -> int:
    return int(await client.redis.execute_command("LLEN", client.keys(QUEUE).wake))


async def test_claims_come_in_the_order_of_publication(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a", "b", "c"), limit=16)
    assert await claim(client, 2) == ["a", "b"]
    assert await claim(client, 2) == ["c"]
    assert await claim(client, 2) == []


async def test_a_claim_carries_what_was_published(client: QueueClient) -> None:
    body = bytes(range(256))
    await client.publish(QUEUE, [Offer("a:1", "mail", body)], limit=16)
    (message,) = await claims(client, 1)
    assert (message.queue, message.key, message.kind, message.body) == (QUEUE, "a:1", "mail", body)


async def test_publishing_twice_is_a_no_op(client: QueueClient) -> None:
    first = await client.publish(QUEUE, offers("a", "b"), limit=16)
    second = await client.publish(QUEUE, offers("a", "b", "c"), limit=16)
    assert (first.published, second.published, second.waiting) == (2, 1, 3)


async def test_a_claimed_message_is_not_published_again(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a"), limit=16)
    await claim(client, 1)
    assert (await client.publish(QUEUE, offers("a"), limit=16)).published == 0


async def test_publishing_stops_at_the_limit(client: QueueClient) -> None:
    answer = await client.publish(QUEUE, offers("a", "b", "c"), limit=2)
    assert (answer.published, answer.waiting) == (2, 2)
    assert (await client.depth(QUEUE)).window == 2


async def test_an_acknowledged_message_leaves_nothing_behind(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a", "b"), limit=16)
    taken = await claims(client, 2)
    assert await client.ack(QUEUE, taken) == frozenset()
    depth = await client.depth(QUEUE)
    assert (depth.waiting, depth.claimed, depth.window) == (0, 0, 0)
    assert await client.redis.execute_command("XLEN", client.keys(QUEUE).stream) == 0


async def test_an_acknowledgement_may_be_repeated(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a"), limit=16)
    taken = await claims(client, 1)
    await client.ack(QUEUE, taken)
    assert await client.ack(QUEUE, taken) == {claim.id for claim in taken}


async def test_waiting_is_true_after_undelivered_entries_were_deleted(client: QueueClient) -> None:
    """The group's own lag turns nil there."""
    await client.publish(QUEUE, offers("a", "b", "c"), limit=16)
    await claim(client, 1)
    stream = client.keys(QUEUE).stream
    last = (await client.redis.execute_command("XREVRANGE", stream, "+", "-", "COUNT", 1))[0][0]
    await client.redis.execute_command("XDEL", stream, last)
    assert (await client.depth(QUEUE)).waiting == 1


async def test_there_is_a_token_whenever_a_message_waits(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a", "b", "c"), limit=16)
    assert await tokens(client) == 3
    await client.redis.execute_command("DEL", client.keys(QUEUE).wake)
    await claim(client, 1)
    assert await tokens(client) == 1
    await claim(client, 5)
    assert await tokens(client) == 0


async def test_a_blocked_worker_wakes_when_something_is_published(client: QueueClient) -> None:
    waiting = asyncio.create_task(client.wait_for_work(["other", QUEUE], SOON))
    await client.publish(QUEUE, offers("a"), limit=16)
    assert await waiting == QUEUE


async def test_waiting_for_work_ends_without_any(client: QueueClient) -> None:
    assert await client.wait_for_work([QUEUE], AT_ONCE) is None


async def test_a_wait_is_over_before_its_connection_takes_the_server_for_lost(
    valkey_url: str,
) -> None:
    async with open_client(valkey_url, {"socket_timeout": 1.5}) as impatient:
        assert await QueueClient(impatient).wait_for_work([QUEUE], SOON) is None


async def test_a_draining_pod_is_refused_and_gives_its_token_back(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a"), limit=16)
    await flag_drain(client, [QUEUE], "p1", SOON)
    assert await client.wait_for_work([QUEUE], SOON) == QUEUE
    refused = await client.claim(QUEUE, "w1", 4, pod="p1", has_token=True)
    assert (refused.is_draining, refused.claims, refused.waiting) == (True, (), 1)
    assert await tokens(client) == 1
    other = await client.claim(QUEUE, "w2", 4, pod="p2")
    assert [message.key for message in other.claims] == ["a"]


async def test_a_refused_claim_without_a_token_makes_none(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a"), limit=16)
    await flag_drain(client, [QUEUE], "p1", SOON)
    await client.claim(QUEUE, "w1", 4, pod="p1")
    assert await tokens(client) == 1


async def test_an_unflagged_pod_claims_again(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a"), limit=16)
    await flag_drain(client, [QUEUE], "p1", SOON)
    await unflag_drain(client, [QUEUE], "p1")
    assert await claim(client, 1) == ["a"]


async def test_released_messages_go_to_others_at_once(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a", "b"), limit=16)
    taken = await claims(client, 2)
    assert await client.release(QUEUE, taken) == 2
    assert await tokens(client) >= 1
    assert await claim(client, 5, "w2") == ["a", "b"]
    assert (await client.depth(QUEUE)).window == 2


async def test_a_message_is_released_once(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a"), limit=16)
    taken = await claims(client, 1)
    await client.release(QUEUE, taken)
    assert await client.release(QUEUE, taken) == 0
    assert (await client.depth(QUEUE)).waiting == 1


async def test_an_expired_lease_lets_the_key_be_published_again(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a", "b"), limit=16)
    await claim(client, 1)
    assert await client.expire(QUEUE, SOON) == []
    assert await client.expire(QUEUE, timedelta(0)) == ["a"]
    assert (await client.publish(QUEUE, offers("a", "b"), limit=16)).published == 1
    assert await claim(client, 5, "w2") == ["b", "a"]
    assert (await client.depth(QUEUE)).expired_total == 1


async def test_only_the_owner_renews_a_lease(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a"), limit=16)
    taken = await claims(client, 1)
    assert await client.renew(QUEUE, "w2", taken) == ()
    assert await client.renew(QUEUE, "w1", taken) == taken
    await client.ack(QUEUE, taken)
    assert await client.renew(QUEUE, "w1", taken) == ()


async def test_a_full_queue_wakes_a_dispatcher_at_half(client: QueueClient) -> None:
    await client.publish(QUEUE, offers(*"abcdefgh"), limit=4)
    await claim(client, 1)
    assert await client.wait_for_dispatch([QUEUE], AT_ONCE) is None
    await claim(client, 1)
    assert await client.wait_for_dispatch([QUEUE], SOON) == QUEUE
    await claim(client, 1)
    assert await client.wait_for_dispatch([QUEUE], AT_ONCE) is None


async def test_a_queue_that_is_not_full_sets_no_mark(client: QueueClient) -> None:
    await client.publish(QUEUE, offers(*"abcd"), limit=4)
    await client.publish(QUEUE, [], limit=8)
    await claim(client, 4)
    assert await client.wait_for_dispatch([QUEUE], AT_ONCE) is None


async def test_one_token_suffices_for_dispatchers(client: QueueClient) -> None:
    await tell(client, wake=[QUEUE, QUEUE, "other"])
    woken = [await client.wait_for_dispatch([QUEUE, "other"], AT_ONCE) for _ in range(3)]
    assert woken == [QUEUE, "other", None]


async def test_an_emptied_server_is_filled_by_the_next_publication(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a", "b"), limit=16)
    await claim(client, 1)
    await client.redis.execute_command("FLUSHALL")
    assert await claim(client, 4) == []
    assert (await client.publish(QUEUE, offers("a", "b"), limit=16)).published == 2
    assert await claim(client, 4) == ["a", "b"]


async def test_a_lost_group_is_made_again_and_loses_nothing(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a", "b"), limit=16)
    await claim(client, 1)
    await client.redis.execute_command("XGROUP", "DESTROY", client.keys(QUEUE).stream, "workers")
    assert (await client.depth(QUEUE)).claimed == 0
    assert await claim(client, 4) == ["a", "b"]


async def test_a_window_without_messages_is_cleared(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a", "b"), limit=16)
    await client.redis.execute_command("DEL", client.keys(QUEUE).stream)
    assert (await client.publish(QUEUE, offers("a", "b"), limit=16)).published == 0
    assert await client.clear_window(QUEUE) == 2
    assert (await client.publish(QUEUE, offers("a", "b"), limit=16)).published == 2


async def test_a_window_with_messages_is_left_alone(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a"), limit=16)
    await claim(client, 1)
    assert await client.clear_window(QUEUE) == 0
    assert (await client.depth(QUEUE)).window == 1


async def test_scripts_survive_a_server_that_forgot_them(client: QueueClient) -> None:
    await client.publish(QUEUE, offers("a"), limit=16)
    await client.redis.execute_command("SCRIPT", "FLUSH")
    assert await claim(client, 1) == ["a"]
    await client.redis.execute_command("SCRIPT", "FLUSH")
    await tell(client, wake=[QUEUE, "other"])
    assert await client.wait_for_dispatch([QUEUE], SOON) == QUEUE


async def test_concurrent_claims_share_the_messages(client: QueueClient) -> None:
    keys = [f"k{number}" for number in range(200)]
    await client.publish(QUEUE, offers(*keys), limit=1000)
    patient = QueueClient(client.redis, deadline=SOON)
    taken = await asyncio.gather(*(claim(patient, 3, f"w{number}") for number in range(80)))
    assert sorted(key for part in taken for key in part) == sorted(keys)
    assert max(len(part) for part in taken) == 3


async def test_an_absent_server_is_one_error() -> None:
    async with Redis(unix_socket_path="/nonexistent/valkey.sock") as redis:
        client = QueueClient(redis, deadline=timedelta(milliseconds=300))
        with pytest.raises(QueueUnavailable):
            await client.depth(QUEUE)


async def test_a_silent_server_is_absent_after_the_deadline(redis: Redis) -> None:
    client = QueueClient(redis, deadline=timedelta(milliseconds=100))
    await redis.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    try:
        with pytest.raises(QueueUnavailable):
            await client.depth(QUEUE)
    finally:
        await redis.execute_command("CLIENT", "UNPAUSE")
