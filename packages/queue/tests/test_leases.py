"""Queues whose truth is Valkey: what becomes of a message until it is acknowledged."""

import math
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from redis.asyncio import Redis

from jangada.testing import eventually
from jangada_queue.client import QueueClient
from jangada_queue.errors import UnsafeServer
from jangada_queue.leases import client as leases
from jangada_queue.leases.dead_letters import dead_letters, find_dead_letter, forget, redrive
from jangada_queue.messages import Claim, Offer
from jangada_queue.service_times import ServiceTimes, observe
from jangada_queue.statistics import Upstream, queue_stats, write_upstream
from jangada_queue.workers import known_queues

pytestmark = pytest.mark.anyio

QUEUE = "mail"
LEASE = timedelta(seconds=10)
HOUR = timedelta(hours=1)


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[QueueClient]:
    async with Redis.from_url(valkey_url) as redis:
        yield QueueClient(redis)


async def kick(client: QueueClient, *keys: str, delay: timedelta = timedelta(0)) -> None:
    for key in keys:
        offer = Offer(key, "send", f"body of {key}".encode())
        await leases.kick(client, QUEUE, offer, delay=delay, extra={"task_id": f"task-{key}"})


async def claim(client: QueueClient, count: int = 9, worker: str = "w1") -> tuple[Claim, ...]:
    return (await client.claim(QUEUE, worker, count, pod="p1", kinds=["send"])).claims


async def now(client: QueueClient) -> datetime:
    return (await leases.sweep(client, QUEUE, lease=LEASE, most_losses=3, seen=None)).at


async def server_time(client: QueueClient) -> float:
    seconds, microseconds = await client.redis.time()
    return float(seconds) + microseconds / 1e6


async def assert_rate(client: QueueClient, rate: float, marks: int, since: float) -> None:
    """So many within a minute, of which no more has decayed than may have since then.

    Valkey keeps nine digits, the last of them rounded up or down.
    """
    least = math.exp((since - await server_time(client)) / 60) * 0.999
    assert marks / 60 * least < rate < marks / 60 * 1.000001


async def sweep(client: QueueClient, *, lease: timedelta = LEASE) -> leases.Sweep:
    seen = await now(client)
    return await leases.sweep(client, QUEUE, lease=lease, most_losses=3, seen=seen)


async def age(client: QueueClient, claims: tuple[Claim, ...], by: timedelta) -> None:
    """Have the leases begun so much earlier."""
    keys = client.keys(QUEUE)
    for each in claims:
        stream = keys.returned if each.id.startswith("r") else keys.stream
        idle = int(by.total_seconds() * 1000)
        await client.redis.xclaim(
            stream, "workers", "w1", 0, [each.id.removeprefix("r")], idle=idle, justid=True
        )


async def lose(client: QueueClient) -> None:
    """Claim what waits and fall silent."""
    await age(client, await claim(client), HOUR)
    await sweep(client)


async def test_a_message_is_gone_once_it_is_acknowledged(client: QueueClient) -> None:
    await kick(client, "a", "b")
    first, second = await claim(client)
    assert (first.key, first.kind, first.body, first.losses) == ("a", "send", b"body of a", 0)
    assert await client.ack(QUEUE, [first, second]) == frozenset()
    assert await client.redis.xlen(client.keys(QUEUE).stream) == 0
    assert await claim(client) == ()


async def test_a_living_lease_is_left_alone(client: QueueClient) -> None:
    await kick(client, "a")
    await claim(client)
    assert (await sweep(client)).returned == 0


async def test_an_ended_lease_is_handed_on_ahead_of_those_that_wait(client: QueueClient) -> None:
    await kick(client, "a")
    (old,) = await claim(client)
    await kick(client, "b", "c")
    await age(client, (old,), HOUR)
    assert (await sweep(client)).returned == 1
    taken = await claim(client, worker="w2")
    assert [(each.key, each.losses) for each in taken] == [("a", 1), ("b", 0), ("c", 0)]
    assert await client.ack(QUEUE, [old]) == {old.id}
    assert await client.ack(QUEUE, taken) == frozenset()


async def test_nothing_is_handed_on_by_one_who_has_not_watched(client: QueueClient) -> None:
    await kick(client, "a")
    await age(client, await claim(client), HOUR)
    swept = await leases.sweep(client, QUEUE, lease=LEASE, most_losses=3, seen=None)
    assert swept.returned == 0


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_jump_of_the_server_s_clock_ends_no_lease(
    client: QueueClient, jump: timedelta
) -> None:
    await kick(client, "a")
    await age(client, await claim(client), HOUR)
    seen = await now(client) - jump
    swept = await leases.sweep(client, QUEUE, lease=LEASE, most_losses=3, seen=seen)
    assert swept.returned == 0


async def test_after_a_clock_was_set_back_all_leases_begin_now(client: QueueClient) -> None:
    await kick(client, "a", "b")
    taken = await claim(client)
    await age(client, taken, -HOUR)
    assert await client.rebase(QUEUE) == 2
    await age(client, taken, timedelta(seconds=11))
    assert (await sweep(client)).returned == 2


async def test_a_renewed_lease_goes_on(client: QueueClient) -> None:
    await kick(client, "a", "b")
    taken = await claim(client)
    await age(client, taken, HOUR)
    assert len(await leases.renew_all(client, QUEUE, "w1")) == 2
    assert (await sweep(client)).returned == 0
    assert not await leases.renew_all(client, QUEUE, "w2")


async def test_a_message_whose_worker_keeps_dying_becomes_a_dead_letter(
    client: QueueClient,
) -> None:
    await kick(client, "a")
    for _ in range(3):
        await lose(client)
    assert await claim(client) == ()
    (letter,) = [each async for each in dead_letters(client, QUEUE)]
    assert (letter.reason, letter.kind, letter.body) == ("poison", "send", b"body of a")
    assert letter.fields["task_id"] == "task-a"
    assert letter.fields["losses"] == "3"


async def test_a_dead_letter_is_redriven_once_and_as_if_it_were_new(client: QueueClient) -> None:
    await kick(client, "a")
    for _ in range(3):
        await lose(client)
    (letter,) = [each async for each in dead_letters(client, QUEUE)]
    assert await redrive(client, QUEUE, [letter.id]) == 1
    assert await redrive(client, QUEUE, [letter.id]) == 0
    assert await client.wait_for_work([QUEUE], LEASE) == QUEUE
    (again,) = await claim(client)
    assert (again.key, again.losses) == ("a", 0)


async def test_dead_letters_stay_until_they_are_forgotten(client: QueueClient) -> None:
    await kick(client, *(f"k{number:03}" for number in range(250)))
    for each in await claim(client, 250):
        assert await leases.bury(client, each, "It can't be read.")
    letters = [each async for each in dead_letters(client, QUEUE)]
    assert [each.fields["key"] for each in letters] == [f"k{number:03}" for number in range(250)]
    assert await find_dead_letter(client, QUEUE, letters[7].id) == letters[7]
    assert await forget(client, QUEUE, [each.id for each in letters]) == 250
    assert await find_dead_letter(client, QUEUE, letters[7].id) is None


async def test_what_lacks_a_field_of_the_protocol_is_a_dead_letter(client: QueueClient) -> None:
    await client.redis.xadd(client.keys(QUEUE).stream, {"data": b"\xff\x00 no letter of ours"})
    await kick(client, "a")
    assert [each.key for each in await claim(client)] == ["a"]
    (letter,) = [each async for each in dead_letters(client, QUEUE)]
    assert (letter.reason, letter.kind) == ("unreadable", "")
    assert "no letter of ours" in letter.fields["data"]


async def test_a_surrendered_message_waits_before_it_is_tried_again(client: QueueClient) -> None:
    await kick(client, "a")
    taken = await claim(client)
    losses = await leases.surrender(
        client, QUEUE, "w1", taken, most_losses=3, detail="It failed.", delay=HOUR
    )
    assert losses == leases.Losses(returned=0, delayed=1, buried=0)
    assert await claim(client) == ()
    (stats,) = await queue_stats(client, [QUEUE])
    assert (stats.delayed, stats.due) == (1, 0)


async def test_only_the_owner_surrenders(client: QueueClient) -> None:
    await kick(client, "a")
    taken = await claim(client)
    losses = await leases.surrender(client, QUEUE, "w2", taken, most_losses=3, detail="Theft.")
    assert losses == leases.Losses(0, 0, 0)
    assert await client.ack(QUEUE, taken) == frozenset()


async def test_all_that_a_dead_process_held_is_handed_on_at_once(client: QueueClient) -> None:
    await kick(client, "a", "b")
    await lose(client)
    await claim(client, 2)
    await kick(client, "c")
    (theirs,) = await claim(client, worker="w2")
    losses = await leases.surrender(client, QUEUE, "w1", None, most_losses=3, detail="It died.")
    assert losses.returned == 2
    assert [each.key for each in await claim(client, worker="w2")] == ["a", "b"]
    assert await client.ack(QUEUE, [theirs]) == frozenset()


async def test_what_a_process_holds_beside_its_killer_dies_with_it(client: QueueClient) -> None:
    """Nobody can tell them apart: a stranger that was held once is returned."""
    await kick(client, "killer", "neighbour")
    for _ in range(2):
        await claim(client, 2)
        await leases.surrender(client, QUEUE, "w1", None, most_losses=3, detail="It died.")
    await kick(client, "stranger")
    await claim(client, 3)
    losses = await leases.surrender(client, QUEUE, "w1", None, most_losses=3, detail="It died.")
    assert (losses.returned, losses.buried) == (1, 2)
    letters = [each async for each in dead_letters(client, QUEUE)]
    assert sorted(each.fields["key"] for each in letters) == ["killer", "neighbour"]


async def test_a_delayed_message_comes_when_it_is_due(client: QueueClient) -> None:
    await kick(client, "later", delay=HOUR)
    await kick(client, "soon", delay=timedelta(milliseconds=1))

    async def is_out() -> leases.Sweep | None:
        swept = await sweep(client)
        return swept if swept.until_due and swept.until_due > timedelta(minutes=59) else None

    await eventually(is_out)
    assert [each.key for each in await claim(client)] == ["soon"]


async def test_a_queue_has_one_truth(client: QueueClient) -> None:
    await leases.serve(client, [QUEUE])
    await leases.serve(client, [QUEUE])
    await client.redis.set(client.keys("jobs").truth, "postgresql")
    with pytest.raises(UnsafeServer, match="jobs belongs to jobs in postgresql"):
        await leases.serve(client, ["jobs"])


async def test_a_dispatcher_leaves_an_applications_queue_alone(client: QueueClient) -> None:
    """Whatever it does there, its rows wouldn't bring a message back."""
    await leases.serve(client, [QUEUE])
    await kick(client, "a", "b")
    await claim(client, 1)
    with pytest.raises(UnsafeServer, match="is a taskiq application's"):
        await write_upstream(client, QUEUE, Upstream(1, 0, 0.0, 0, 1))
    assert await client.expire(QUEUE, timedelta(0)) == []
    await client.redis.sadd(client.keys(QUEUE).window, "a")
    assert await client.clear_window(QUEUE) == 0
    assert not await client.offer(QUEUE, Offer("job", "known", b""))
    assert (await client.publish(QUEUE, [Offer("job", "known", b"")], limit=9)).published == 0
    (stats,) = await queue_stats(client, [QUEUE])
    assert (stats.waiting, stats.claimed, stats.upstream) == (1, 1, None)
    assert await known_queues(client) == [QUEUE]


async def test_statistics_say_what_waits_and_since_when(client: QueueClient) -> None:
    began = await server_time(client)
    await kick(client, "a", "b", "c")
    await kick(client, "later", delay=HOUR)
    taken = await claim(client, 1)
    await client.release(QUEUE, taken)
    (stats,) = await queue_stats(client, [QUEUE])
    assert (stats.waiting, stats.claimed, stats.delayed, stats.dead) == (3, 0, 1, 0)
    assert stats.oldest_wait_seconds is not None
    assert stats.oldest_wait_seconds >= 0
    assert stats.published_total == 4
    await assert_rate(client, stats.arrival_per_second, 4, began)


async def test_an_empty_queue_has_no_oldest(client: QueueClient) -> None:
    await kick(client, "a")
    await claim(client)
    (stats,) = await queue_stats(client, [QUEUE])
    assert (stats.waiting, stats.oldest_wait_seconds) == (0, None)


async def test_the_oldest_is_one_that_came_back(client: QueueClient) -> None:
    """Its wait began when it was enqueued, not when it came back."""
    await kick(client, "a")
    (taken,) = await claim(client)
    await client.redis.xadd(client.keys(QUEUE).returned, {"v": "1.0", "since": "1000000000000"})
    (stats,) = await queue_stats(client, [QUEUE])
    assert stats.oldest_wait_seconds is not None
    assert stats.oldest_wait_seconds > 10**8
    assert taken.key == "a"


async def test_statistics_say_how_long_work_takes(client: QueueClient) -> None:
    times = ServiceTimes()
    for seconds in [0.1] * 90 + [2.0] * 10:
        times.add(seconds, "slow" if seconds > 1 else "a:count")
    began = await server_time(client)
    await observe(client, QUEUE, times)
    await observe(client, QUEUE, times)
    (stats,) = await queue_stats(client, [QUEUE])
    assert stats.completed_total == 200
    assert stats.service_mean_seconds == pytest.approx(0.29)
    assert stats.service_p95_seconds is not None
    assert 2.0 <= stats.service_p95_seconds <= 2.4
    await assert_rate(client, stats.completion_per_second, 200, began)
    assert stats.service.means() == pytest.approx({"slow": 2.0, "a:count": 0.1})
    assert stats.service.capped(1.0)[0] == pytest.approx(0.19, rel=0.1)


async def test_service_times_are_those_of_two_generations(client: QueueClient) -> None:
    slow, fast = ServiceTimes(), ServiceTimes()
    slow.add(100.0, "a")
    fast.add(1.0, "a")
    await observe(client, QUEUE, slow)
    key = f"{client.keys(QUEUE).base}:service"
    for _ in range(2):
        await client.redis.hset(key, "at", "1000")
        await observe(client, QUEUE, fast)
    (stats,) = await queue_stats(client, [QUEUE])
    assert stats.service_mean_seconds == pytest.approx(1.0)


async def test_a_rate_is_forgotten_within_minutes(client: QueueClient) -> None:
    await kick(client, "a")
    key = f"{client.keys(QUEUE).base}:rates"
    at = int(await client.redis.hget(key, "arrived_at") or 0)
    await client.redis.hset(key, "arrived_at", str(at - 600_000))
    (stats,) = await queue_stats(client, [QUEUE])
    assert 0 < stats.arrival_per_second < 1e-5
