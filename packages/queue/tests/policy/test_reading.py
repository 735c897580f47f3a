"""The policy is told what the queues say, on a real server."""

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest
from redis.asyncio import Redis

from jangada_queue.client import QueueClient
from jangada_queue.leases.client import kick
from jangada_queue.messages import Offer
from jangada_queue.policy.observation import Running
from jangada_queue.policy.reading import by_pod, read, workers_of
from jangada_queue.service_times import ServiceTimes, observe
from jangada_queue.statistics import QueueStats, Upstream, queue_stats, write_upstream
from jangada_queue.workers import RunningWork, WorkerReport, report

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[QueueClient]:
    async with Redis.from_url(valkey_url) as redis:
        yield QueueClient(redis)


def worker(pod: str, *queues: str) -> WorkerReport:
    return WorkerReport(
        worker=uuid.uuid4().hex,
        pod=pod,
        host="h",
        pid=1,
        version="1",
        queues=list(queues),
        kinds=["a"],
        slots=4,
    )


async def stats(client: QueueClient, *queues: str) -> list[QueueStats]:
    return await queue_stats(client, queues)


async def test_queues_that_were_never_used_ask_for_nothing(client: QueueClient) -> None:
    found = read(await stats(client, "one", "two"))
    assert found.signals is not None
    assert (found.signals.backlog, found.signals.in_flight, found.signals.arrived) == (0, 0, 0)


async def test_what_several_queues_say_is_added_up(client: QueueClient) -> None:
    for queue in ("one", "two", "two"):
        await kick(client, queue, Offer(uuid.uuid4().hex, "a", b""))
    await kick(client, "one", Offer("later", "a", b""), delay=timedelta(seconds=5))
    await kick(client, "one", Offer("soon", "a", b""), delay=timedelta(seconds=50))
    await client.claim("two", "w", 1, pod="p")
    times = ServiceTimes()
    times.add(2.0, "a")
    await observe(client, "one", times)
    times.add(4.0, "a")
    await observe(client, "two", times)
    found = read(await stats(client, "one", "two")).signals
    assert found is not None
    assert (found.backlog, found.in_flight) == (2, 1)
    assert list(found.due_soon) == [(10.0, 1), (60.0, 2)]
    assert found.kinds == {"a": pytest.approx(8 / 3)}
    assert found.service.count == 3


async def test_work_that_is_not_published_yet_counts_once(client: QueueClient) -> None:
    """Of 100 available rows ten are published, four of which are claimed."""
    offers = [Offer(f"{number}:1", "a", b"") for number in range(10)]
    await client.publish("jobs", offers, limit=100)
    await client.claim("jobs", "w", 4, pod="p")
    figures = Upstream(100, 7, 3.0, 20, 100, arrival_per_second=5.0, due_10s=2)
    await write_upstream(client, "jobs", figures)
    found = read(await stats(client, "jobs")).signals
    assert found is not None
    assert (found.backlog, found.in_flight, found.arrived) == (96, 11, 100)
    assert found.arrival_rate == 5.0
    assert list(found.due_soon) == [(10.0, 2), (60.0, 20)]
    assert found.oldest_wait >= 3.0


async def test_a_silent_dispatcher_makes_the_signals_of_the_pool_stale(client: QueueClient) -> None:
    await write_upstream(client, "jobs", Upstream(100, 0, 0.0, 0, 100))
    one, two = await stats(client, "jobs", "other")
    silent = msgspec.structs.replace(one, upstream_age_seconds=31.0)
    found = read([silent, two])
    assert (found.signals, found.age) == (None, 31.0)
    assert read([one, two]).signals is not None


async def test_processes_of_a_pod_are_one_replica(client: QueueClient) -> None:
    idle = worker("pod-1", "one", "two")
    runs = [RunningWork("k", "a", 5.0)]
    busy = msgspec.structs.replace(worker("pod-1", "one", "two"), running=runs, claiming=2)
    await report(client, "pod-1", [busy, idle])
    await report(client, "pod-2", [worker("pod-2", "two")])
    workers = workers_of(await stats(client, "one", "two"))
    pods = by_pod(workers)
    assert set(pods) == {"pod-1", "pod-2"}
    assert (pods["pod-1"].slots, pods["pod-1"].held) == (8, 3)
    assert pods["pod-1"].running == [Running("a", 5.0)]
    found = read(await stats(client, "one", "two")).signals
    assert found is not None
    assert found.in_flight == 1, "what runs by report, though its message is acknowledged"
