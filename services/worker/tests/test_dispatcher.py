"""The dispatcher: what may start is published, once, whatever was lost on the way."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, override
from uuid import uuid4

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry

from jangada.db import utc_now
from jangada.jobs.delivery.connection import DirectConnection
from jangada.jobs.delivery.dispatch import Aside
from jangada.jobs.delivery.sweep import Swept
from jangada_queue.client import QueueClient
from jangada_queue.leases import client as leases
from jangada_queue.messages import Depth, Offer, OnOffer
from jangada_queue.patience import Stop
from jangada_queue.signals import tell
from jangada_queue.statistics import Upstream, queue_stats, write_upstream
from jangada_queue.workers import WorkerReport, report
from jangada_worker.dispatcher import Dispatcher
from jangada_worker.housekeeping import Housekeeping
from jangada_worker.metrics import DispatcherMetrics
from jangada_worker.retention import Retention

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
PATIENCE = 60


async def until_depth(raft: "Raft", queue: str = "default", **wanted: int) -> Depth:
    async def reached() -> Depth | None:
        depth = await raft.runtime.queue.depth(queue)
        return depth if all(getattr(depth, k) == v for k, v in wanted.items()) else None

    found: Depth = await raft.until(reached)
    return found


async def test_committed_jobs_are_published_in_order(raft: "Raft") -> None:
    jobs = [await raft.enqueue("ping") for _ in range(3)]
    await raft.dispatcher()
    await until_depth(raft, waiting=3)
    answer = await raft.runtime.queue.claim("default", "w", 9, pod="p")
    assert [claim.key for claim in answer.claims] == [f"{job.id}:0" for job in jobs]


class NeverQuiet(QueueClient):
    """A queue whose every job is over at once, and for which there is always another."""

    queue = "a-busy-one"
    replace_job: Callable[[], Awaitable[None]]

    @override
    async def on_offer(self, queue: str, *, with_messages: bool = False) -> OnOffer:
        if queue == self.queue:
            claims = await self.claim(queue, "w", 99, pod="p")
            await self.ack(queue, claims.claims)
            await self.replace_job()
        return await super().on_offer(queue, with_messages=with_messages)


async def test_a_busy_queue_keeps_nothing_from_others(raft: "Raft") -> None:
    """Neither a queue that nobody knew, nor a job that becomes due."""
    busy = NeverQuiet(raft.runtime.valkey)
    jobs = [await raft.enqueue("ping", queue=busy.queue)]
    under_way = asyncio.Event()

    async def replace_job() -> None:
        await raft.cancel(jobs[-1])
        jobs.append(await raft.enqueue("ping", queue=busy.queue))
        if len(jobs) > 20:
            under_way.set()

    busy.replace_job = replace_job
    raft.runtime = replace(raft.runtime, queue=busy)
    await raft.dispatcher()
    async with asyncio.timeout(PATIENCE):
        await under_way.wait()
    await raft.enqueue("ping", queue="of-somebody-else")
    due = await raft.enqueue("ping", scheduled_at=utc_now() + timedelta(milliseconds=300))
    await until_depth(raft, "of-somebody-else", waiting=1)
    await raft.until_state(due, "available")
    await until_depth(raft, waiting=1)


async def test_a_queue_that_nobody_knew_is_found(raft: "Raft") -> None:
    await raft.dispatcher()
    await raft.enqueue("ping", queue="brand-new")
    await until_depth(raft, "brand-new", waiting=1)


async def test_an_applications_queue_is_left_alone(raft: "Raft") -> None:
    """Jobs that name it wait; a message that is claimed for longer than a lease stays."""
    client = raft.runtime.queue
    await leases.serve(client, ["mail"])
    await leases.kick(client, "mail", Offer("letter", "note", b""))
    await client.claim("mail", "w", 1, pod="p")
    job = await raft.enqueue("ping", queue="mail")
    with structlog.testing.capture_logs() as logs:
        await raft.dispatcher()
        long_after = utc_now() + raft.settings.jobs.message_lease * 2
        await raft.enqueue("ping", scheduled_at=long_after)
        await until_depth(raft, waiting=1)
    depth = await client.depth("mail")
    assert (depth.waiting, depth.claimed) == (0, 1)
    assert (await raft.reload(job)).state == "available"
    (told,) = [line for line in logs if line["event"] == "a queue's jobs are never published"]
    assert told["queue"] == "mail"


async def test_the_window_bounds_what_is_published(raft: "Raft") -> None:
    for _ in range(20):
        await raft.enqueue("ping")
    await raft.dispatcher()
    await until_depth(raft, waiting=16, window=16)
    claims = (await raft.runtime.queue.claim("default", "w", 10, pod="p")).claims
    await raft.runtime.queue.ack("default", claims)
    # Acknowledged without a grant, they are available still: they come again, and the rest too.
    await until_depth(raft, waiting=16)
    assert (await raft.runtime.queue.depth("default")).published_total >= 26


async def test_due_jobs_are_published_when_their_time_comes(raft: "Raft") -> None:
    await raft.dispatcher()
    later = await raft.enqueue("ping", scheduled_at=utc_now() + HOUR)
    soon = await raft.enqueue("ping", scheduled_at=utc_now() + timedelta(milliseconds=300))
    await raft.until_state(soon, "available")
    await until_depth(raft, waiting=1)
    assert (await raft.reload(later)).state == "scheduled"


async def test_kinds_that_no_worker_knows_stay_in_postgresql(raft: "Raft") -> None:
    worker = WorkerReport("w", "p", "h", 1, "0", ["default"], ["ping"], 4)
    await raft.dispatcher()

    async def is_known() -> bool:
        """As workers do it: who doesn't report for some seconds knows nothing any more."""
        await report(raft.runtime.queue, "p", [worker])
        (stats,) = await queue_stats(raft.runtime.queue, ["default"])
        return stats.upstream is not None

    async def are_published(count: int) -> bool:
        depth = await raft.runtime.queue.depth("default")
        return await is_known() and depth.waiting == depth.window == count

    await raft.until(is_known)
    await raft.enqueue_together("test.of-tomorrow", "ping")
    await raft.until(lambda: are_published(1))
    await raft.enqueue("ping")
    await raft.until(lambda: are_published(2))
    answer = await raft.runtime.queue.claim("default", "w", 9, pod="p")
    assert [claim.kind for claim in answer.claims] == ["ping", "ping"]


async def test_an_emptied_valkey_is_filled_again(raft: "Raft") -> None:
    for _ in range(3):
        await raft.enqueue("ping")
    await raft.dispatcher()
    await until_depth(raft, waiting=3)
    await raft.runtime.queue.claim("default", "w", 1, pod="p")
    await raft.runtime.valkey.flushall()
    await until_depth(raft, waiting=3, window=3)


async def test_a_window_whose_messages_were_lost_heals(raft: "Raft") -> None:
    await raft.enqueue("ping")
    await raft.dispatcher()
    await until_depth(raft, waiting=1)
    await raft.runtime.valkey.delete(raft.runtime.queue.keys("default").stream)
    await until_depth(raft, waiting=1, window=1)


async def test_a_claim_that_comes_to_nothing_is_published_again(raft: "Raft") -> None:
    """Its worker died between claim and grant: the message's lease ends."""
    job = await raft.enqueue("ping")
    await raft.dispatcher()
    await until_depth(raft, waiting=1)
    await raft.runtime.queue.claim("default", "w", 1, pod="p")
    depth = await until_depth(raft, waiting=1, claimed=0)
    assert depth.expired_total == 1
    assert (await raft.reload(job)).state == "available"


async def test_upstream_says_what_waits_in_postgresql(raft: "Raft") -> None:
    for _ in range(20):
        await raft.enqueue("ping")
    await raft.dispatcher()

    async def said() -> bool:
        (stats,) = await queue_stats(raft.runtime.queue, ["default"])
        upstream = stats.upstream
        return (
            upstream is not None
            and (upstream.available, upstream.enqueued_total, stats.waiting) == (20, 20, 16)
            and stats.is_upstream_fresh
        )

    await raft.until(said)


async def test_a_queue_of_an_earlier_dispatcher_is_told_of(raft: "Raft") -> None:
    """It is empty and served by nobody: its figures would seem to be nobody's, too."""
    before = Upstream(5, 0, 0, 0, 0)
    await write_upstream(raft.runtime.queue, "former", before)
    await raft.dispatcher()

    async def is_told() -> bool:
        (stats,) = await queue_stats(raft.runtime.queue, ["former"])
        return stats.upstream is not None and stats.upstream.available == 0

    await raft.until(is_told)


async def test_two_dispatchers_publish_everything_once(raft: "Raft") -> None:
    await raft.dispatcher()
    stop = Stop()
    rival = asyncio.create_task(Dispatcher(raft.runtime, CollectorRegistry(), stop).run())
    for _ in range(12):
        await raft.enqueue("ping")
    depth = await until_depth(raft, waiting=12, window=12)
    assert depth.published_total == 12
    stop.ask()
    await rival


async def test_another_dispatcher_takes_over_from_a_killed_one(raft: "Raft") -> None:
    doomed = await raft.dispatcher_process()
    await raft.enqueue("ping")
    await until_depth(raft, waiting=1)
    doomed.send(signal.SIGSTOP)
    await raft.dispatcher()
    await raft.enqueue("ping")
    await until_depth(raft, waiting=2)
    doomed.send(signal.SIGKILL)
    await doomed.ended()
    await raft.enqueue("ping")
    await until_depth(raft, waiting=3)


async def test_an_idle_dispatcher_ends_in_order(raft: "Raft") -> None:
    program = await raft.dispatcher_process()
    assert await program.stop() == 0


@asynccontextmanager
async def housekeeping(
    raft: "Raft", *, prune_after: timedelta = HOUR
) -> AsyncIterator[tuple[Housekeeping, CollectorRegistry]]:
    """A dispatcher's, round by round, and where its figures go."""
    connection = DirectConnection(raft.runtime.database, deadline=HOUR)
    registry = CollectorRegistry()
    metrics = DispatcherMetrics(registry)
    house = Housekeeping(
        *(raft.runtime.queue, connection, metrics),
        lease=HOUR,
        retention=Retention(connection, metrics, {}),
        prune_after=prune_after,
    )
    yield house, registry
    await connection.close()


async def test_jobs_that_are_stuck_in_an_applications_queue_are_counted(raft: "Raft") -> None:
    await leases.serve(raft.runtime.queue, ["mail"])
    await raft.enqueue("ping", queue="mail")
    async with housekeeping(raft) as (house, registry):
        await house.keep({"default"})
    assert registry.get_sample_value("jangada_queue_available", {"queue": "mail"}) == 1


async def test_a_queue_that_valkey_refuses_hides_and_stops_no_other(raft: "Raft") -> None:
    """Somebody else has written into one of its keys."""
    await raft.runtime.valkey.set(raft.runtime.queue.keys("a").stream, "foreign")
    await raft.enqueue("ping", queue="a")
    await raft.enqueue("ping")
    async with housekeeping(raft) as (house, registry):
        await house.keep({"a", "default"})
    for queue, available in (("a", None), ("default", 1)):
        name = "jangada_queue_available"
        assert registry.get_sample_value(name, {"queue": queue}) == available
    await raft.dispatcher()
    await until_depth(raft, waiting=1)


async def test_a_queue_that_valkey_refuses_waits_by_itself_until_it_is_of_use(
    raft: "Raft",
) -> None:
    """Notices of other queues are heard meanwhile, and what waits for what is said."""
    valkey, keys = raft.runtime.valkey, raft.runtime.queue.keys
    await valkey.set(keys("a").stream, "foreign")
    await raft.enqueue("ping", queue="a")
    dispatcher = await raft.dispatcher_process()

    async def reasons() -> dict[str, str]:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            answer = await client.get(f"{dispatcher.management_url}/health/ready")
        assert answer.status_code == 200
        found: dict[str, str] = answer.json()["reasons"]
        return found

    async def says(said: dict[str, str]) -> bool:
        return await reasons() == said

    async def has_heard() -> bool:
        return not await valkey.exists(keys("default").dispatch)

    await raft.until(lambda: says({"valkey": "dispatch of a waits for it"}))
    await tell(raft.runtime.queue, wake=["default"])
    await raft.until(has_heard)
    await valkey.delete(keys("a").stream)
    await until_depth(raft, "a", waiting=1)
    await raft.until(lambda: says({}))


async def test_a_queue_without_dead_letters_has_a_figure_from_the_first_look(
    raft: "Raft",
) -> None:
    """An alarm compares with what was there before the first one."""
    await raft.enqueue("ping", queue="mail")
    async with housekeeping(raft) as (house, registry):
        await house.keep({"default"})
    counters = ("jangada_job_crashed_total", "jangada_job_poisoned_total")
    for name in ("jangada_queue_dead", "jangada_queue_delayed", *counters):
        for queue in ("default", "mail"):
            assert registry.get_sample_value(name, {"queue": queue}) == 0


def test_a_queue_whose_dead_letters_are_gone_has_none() -> None:
    registry = CollectorRegistry()
    metrics = DispatcherMetrics(registry)
    metrics.show_aside({"mail": Aside(delayed=1, dead=2)}, ["default"])
    assert registry.get_sample_value("jangada_queue_dead", {"queue": "mail"}) == 2
    metrics.show_aside({}, [])
    assert registry.get_sample_value("jangada_queue_dead", {"queue": "mail"}) == 0
    assert registry.get_sample_value("jangada_queue_dead", {"queue": "default"}) == 0


def test_crashed_and_poisoned_jobs_count_for_their_queue() -> None:
    registry = CollectorRegistry()
    metrics = DispatcherMetrics(registry)
    lost = {uuid4(): "mail", uuid4(): "mail", uuid4(): "default"}
    metrics.count_swept(Swept(may_act=True, recovered=lost, discarded={uuid4(): "mail"}))
    for name, queue, count in (
        ("jangada_job_crashed_total", "mail", 2),
        ("jangada_job_crashed_total", "default", 1),
        ("jangada_job_poisoned_total", "mail", 1),
    ):
        assert registry.get_sample_value(name, {"queue": queue}) == count


async def test_housekeeping_forgets_workers_that_fell_silent(raft: "Raft") -> None:
    queue = raft.runtime.queue
    await report(queue, "p", [WorkerReport("w", "p", "h", 1, "0", ["default"], [], 4)])
    beats = queue.keys("default").beats
    await raft.runtime.valkey.zincrby(beats, -2 * HOUR.total_seconds() * 1000, "w")
    async with housekeeping(raft, prune_after=timedelta(0)) as (house, _):
        await house.keep({"default"})
        await house.keep({"default"})
    assert await raft.runtime.valkey.zcard(beats) == 0
