"""What workers say of themselves, and what statistics make of it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from jangada.testing import eventually
from jangada_queue import workers
from jangada_queue.client import QueueClient
from jangada_queue.messages import Offer
from jangada_queue.signals import (
    Progress,
    cancel_nudges,
    nudge_cancel,
    read_progress,
    write_progress,
)
from jangada_queue.statistics import Upstream, queue_stats, write_upstream
from jangada_queue.workers import RunningWork, WorkerReport

pytestmark = pytest.mark.anyio

SOON = timedelta(seconds=30)


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[QueueClient]:
    async with Redis.from_url(valkey_url) as redis:
        yield QueueClient(redis)


def report_of(worker: str, *queues: str, busy: int = 0) -> WorkerReport:
    return WorkerReport(
        worker=worker,
        pod="p1",
        host="host",
        pid=42,
        version="0.1.0",
        queues=list(queues),
        kinds=["mail", worker],
        slots=4,
        running=[RunningWork(f"job:{number}", "mail", 1.5) for number in range(busy)],
    )


async def test_statistics_add_up_what_live_workers_say(client: QueueClient) -> None:
    await workers.report(
        client, "p1", [report_of("w1", "default", "imports", busy=1), report_of("w2", "default")]
    )
    default, imports, unused = await queue_stats(client, ["default", "imports", "unused"])
    assert (default.slots, default.busy, default.kinds) == (8, 1, {"mail", "w1", "w2"})
    assert [worker.worker for worker in imports.workers] == ["w1"]
    assert (unused.slots, unused.waiting, unused.upstream) == (0, 0, None)


async def test_a_report_says_what_runs(client: QueueClient) -> None:
    sent = report_of("w1", "default", busy=2)
    await workers.report(client, "p1", [sent])
    (stats,) = await queue_stats(client, ["default"])
    assert stats.workers == [sent]


async def test_a_report_brings_back_the_drain_flag_of_any_queue(client: QueueClient) -> None:
    both = report_of("w1", "default", "imports")
    assert await workers.report(client, "p1", [both]) == ""
    flag = await workers.flag_drain(client, ["imports"], "p1", SOON)
    assert await workers.report(client, "p1", [both]) == flag
    assert await workers.is_flagged(client, ["default", "imports"], "p1")
    assert not await workers.is_flagged(client, ["default"], "p1")
    assert await workers.report(client, "p2", [report_of("w2", "imports")]) == ""


async def test_a_drain_flag_ends_with_its_owner(client: QueueClient) -> None:
    await workers.flag_drain(client, ["default"], "p1", timedelta(seconds=7))
    remaining = await client.redis.execute_command("PTTL", client.keys("default").drain("p1"))
    assert 0 < remaining <= 7000


async def test_silent_workers_count_for_nothing(client: QueueClient) -> None:
    await workers.report(client, "p1", [report_of("w1", "default")])
    await _age(client, "w1", timedelta(seconds=11))
    (stats,) = await queue_stats(client, ["default"])
    assert stats.workers == []


async def test_pruning_forgets_silent_workers_and_empty_consumers(client: QueueClient) -> None:
    await client.publish("default", [Offer("a", "mail", b"")], limit=8)
    await client.claim("default", "holder", 1, pod="p1")
    await client.claim("default", "w1", 1, pod="p1")
    await workers.report(client, "p1", [report_of("w1", "default")])
    await _age(client, "w1", timedelta(hours=1))
    await _age(client, "holder", timedelta(hours=1))

    async def only_the_holder_is_left() -> bool:
        """Both consumers' idle times count in milliseconds."""
        await workers.prune(client, "default", timedelta(0))
        return await _consumers(client) == {"holder"}

    await eventually(only_the_holder_is_left)
    assert await workers.prune(client, "default", timedelta(0)) == 0


async def test_a_silent_worker_is_forgotten_in_the_end(client: QueueClient) -> None:
    """It may be cut off from Valkey and still run something: its pod isn't provably empty."""
    await workers.report(client, "p1", [report_of("w1", "default"), report_of("w2", "default")])
    await _age(client, "w1", timedelta(hours=2))
    await _age(client, "w2", timedelta(minutes=50))
    assert await workers.prune(client, "default", timedelta(minutes=1)) == 1
    assert await client.redis.hkeys(client.keys("default").workers) == [b"w2"]


async def test_a_worker_that_leaves_takes_its_consumer_along(client: QueueClient) -> None:
    await workers.report(client, "p1", [report_of("w1", "default")])
    await client.publish("default", [Offer("a", "mail", b"")], limit=8)
    await client.ack("default", (await client.claim("default", "w1", 1, pod="p1")).claims)
    assert await _consumers(client) == {"w1"}
    await workers.leave(client, ["default"], ["w1"])
    (stats,) = await queue_stats(client, ["default"])
    assert stats.workers == []
    assert await _consumers(client) == set()


async def test_a_consumer_that_holds_messages_stays(client: QueueClient) -> None:
    """To delete it would drop its claims: the messages would be delivered to nobody."""
    await client.publish("default", [Offer("a", "mail", b"")], limit=8)
    await client.claim("default", "w1", 1, pod="p1")
    await workers.leave(client, ["default"], ["w1"])
    assert await _consumers(client) == {"w1"}
    assert await client.expire("default", timedelta(0)) == ["a"]


async def test_upstream_is_fresh_when_written(client: QueueClient) -> None:
    figures = Upstream(
        available=10_000, running=3, oldest_wait_seconds=1.5, due_60s=7, enqueued_total=12
    )
    await write_upstream(client, "default", figures)
    (stats,) = await queue_stats(client, ["default"])
    assert (stats.upstream, stats.is_upstream_fresh) == (figures, True)


async def test_upstream_turns_stale(client: QueueClient) -> None:
    await write_upstream(client, "default", Upstream(0, 0, 0, 0, 0))
    key = client.keys("default").upstream
    at = int(await client.redis.execute_command("HGET", key, "at"))
    await client.redis.execute_command("HSET", key, "at", at - 6000)
    (stats,) = await queue_stats(client, ["default"])
    assert not stats.is_upstream_fresh


async def test_reports_of_another_version_are_skipped(client: QueueClient) -> None:
    await workers.report(client, "p1", [report_of("w1", "default"), report_of("w2", "default")])
    await client.redis.execute_command("HSET", client.keys("default").workers, "w1", "{}")
    (stats,) = await queue_stats(client, ["default"])
    assert [worker.worker for worker in stats.workers] == ["w2"]


async def test_every_queue_that_was_used_is_known(client: QueueClient) -> None:
    await workers.report(client, "p1", [report_of("w1", "imports")])
    await write_upstream(client, "default", Upstream(0, 0, 0, 0, 0))
    assert await workers.known_queues(client) == ["default", "imports"]


async def test_progress_is_read_for_many_at_once(client: QueueClient) -> None:
    await write_progress(client, "a", Progress(attempt=1, changes=3, done=10, total=20))
    await write_progress(client, "b", Progress(attempt=2, changes=1, done=5))
    found = await read_progress(client, ["a", "none", "b"])
    assert found == {"a": Progress(1, 3, 10, 20), "b": Progress(2, 1, 5, None)}
    assert await read_progress(client, []) == {}


async def test_a_cancel_reaches_those_who_listen(client: QueueClient) -> None:
    nudges = cancel_nudges(client)
    first = anext(nudges)

    async def until_someone_listens() -> None:
        channel = f"{client.prefix}:cancel"
        while (await client.redis.execute_command("PUBSUB", "NUMSUB", channel))[1] == 0:
            pass
        await nudge_cancel(client, ["job-1"])

    heard, _ = await asyncio.gather(first, until_someone_listens())
    await nudges.aclose()  # type: ignore[attr-defined]
    assert heard == "job-1"


async def _age(client: QueueClient, worker: str, by: timedelta) -> None:
    milliseconds = -int(by.total_seconds() * 1000)
    beats = client.keys("default").beats
    await client.redis.execute_command("ZINCRBY", beats, milliseconds, worker)


async def _consumers(client: QueueClient) -> set[str]:
    stream = client.keys("default").stream
    consumers = await client.redis.xinfo_consumers(stream, "workers")
    return {consumer["name"].decode() for consumer in consumers}
