"""What a dispatcher learns from PostgreSQL."""

from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jangada.db import utc_now
from jangada.jobs.delivery.dispatch import (
    Aside,
    count_aside,
    dispatch_round,
    list_queues,
    promote,
    survey,
    upstream,
)
from jangada.jobs.delivery.tickets import Ticket
from jangada.jobs.models import JobState
from jangada_queue.messages import OnOffer

if TYPE_CHECKING:
    from packages.jangada.tests.jobs.delivery.conftest import Bench

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


NOTHING = OnOffer(waiting=0, turn="", keys=frozenset(), messages=())


async def available(bench: "Bench", limit: int = 10, **how: Collection[str]) -> list[Ticket]:
    async with dispatch_round(bench.connection, "default") as held:
        assert held is not None
        return (await held.choose(limit, NOTHING, limits=await held.limits(), **how)).tickets


async def test_available_jobs_of_a_tenant_come_first_in_first_out(bench: "Bench") -> None:
    order = [await bench.enqueue() for _ in range(4)]
    assert [ticket.job_id for ticket in await available(bench)] == [job.id for job in order]
    assert [ticket.job_id for ticket in await available(bench, 3)] == [job.id for job in order[:3]]


async def test_a_ticket_names_the_start_that_comes_next(bench: "Bench") -> None:
    job = await bench.enqueue()
    assert await available(bench) == [Ticket(job.tenant_id, job.id, 0, "test.greet")]


async def test_a_smaller_priority_goes_first(bench: "Bench") -> None:
    later = await bench.enqueue(priority=3)
    sooner = await bench.enqueue(priority=1)
    assert [ticket.job_id for ticket in await available(bench)] == [sooner.id, later.id]


async def test_only_kinds_that_somebody_knows_are_offered(bench: "Bench") -> None:
    job = await bench.enqueue()
    await bench.change(await bench.enqueue(), kind="test.future")
    assert len(await available(bench)) == 2
    known = await available(bench, kinds={"test.greet", "test.other"})
    assert [ticket.job_id for ticket in known] == [job.id]


async def test_a_job_that_crashed_twice_is_to_run_alone(bench: "Bench") -> None:
    once, twice = await bench.enqueue(), await bench.enqueue()
    await bench.change(once, crashes=1)
    await bench.change(twice, crashes=2)
    assert [ticket.is_alone for ticket in await available(bench)] == [False, True]


async def test_other_queues_and_states_are_left_out(bench: "Bench") -> None:
    await bench.enqueue(queue="imports")
    await bench.enqueue(scheduled_at=utc_now() + HOUR)
    await bench.start(await bench.enqueue())
    assert await available(bench) == []


async def test_one_dispatcher_at_a_time_has_a_queue(bench: "Bench") -> None:
    async with bench.database.direct() as rival:
        async with dispatch_round(bench.connection, "default") as held:
            assert held is not None
            async with dispatch_round(rival, "default") as refused:
                assert refused is None
            async with dispatch_round(rival, "imports") as other_queue:
                assert other_queue is not None
        async with dispatch_round(rival, "default") as freed:
            assert freed is not None


async def test_a_dispatcher_that_dies_releases_its_queue(bench: "Bench") -> None:
    async with bench.database.direct() as doomed:
        pid = doomed.info.backend_pid
        try:
            async with dispatch_round(doomed, "default"):
                await bench.connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
                async with dispatch_round(bench.connection, "default") as freed:
                    assert freed is not None
        except Exception:  # noqa: BLE001 - its connection is gone
            assert doomed.closed


async def test_due_jobs_are_promoted_and_others_wait(bench: "Bench") -> None:
    due = await bench.enqueue(scheduled_at=utc_now() + HOUR)
    retry = await bench.enqueue(scheduled_at=utc_now() + HOUR)
    later = await bench.enqueue(scheduled_at=utc_now() + HOUR)
    await bench.make_due(due)
    await bench.make_due(retry)
    await bench.change(retry, state=JobState.RETRYABLE)
    assert (await survey(bench.connection)).due == {"default"}
    assert await promote(bench.connection, "default") == 2
    surveyed = await survey(bench.connection)
    assert (surveyed.available, surveyed.due) == ({"default"}, frozenset())
    assert timedelta(minutes=59) < surveyed.until_due["default"] <= HOUR
    states = [(await bench.reload(job)).state for job in (due, retry, later)]
    assert states == [JobState.AVAILABLE, JobState.AVAILABLE, JobState.SCHEDULED]


async def test_a_survey_finds_the_queues_with_work(bench: "Bench") -> None:
    empty = await survey(bench.connection)
    assert (empty.available, empty.due, dict(empty.until_due)) == (frozenset(), frozenset(), {})
    for queue in ("b", "a", "b", "c"):
        await bench.enqueue(queue=queue)
    await bench.enqueue(queue="later", scheduled_at=utc_now() + HOUR)
    await bench.start(await bench.enqueue(queue="running"))
    surveyed = await survey(bench.connection)
    assert surveyed.available == {"a", "b", "c"}
    assert set(surveyed.until_due) == {"later"}


async def test_without_scheduled_jobs_nothing_is_promoted(bench: "Bench") -> None:
    await bench.enqueue()
    assert await promote(bench.connection, "default") == 0


async def test_queues_are_those_with_waiting_jobs_or_workers(bench: "Bench") -> None:
    assert await list_queues(bench.connection) == []
    await bench.enqueue(queue="b-available")
    await bench.enqueue(queue="a-available")
    await bench.enqueue(queue="due", scheduled_at=utc_now() + HOUR)
    await bench.worker("served", "b-available")
    found = await list_queues(bench.connection)
    assert found == ["a-available", "b-available", "due", "served"]


async def test_slots_of_a_queue_are_those_of_its_workers(bench: "Bench") -> None:
    await bench.worker("default", "imports", slots=4)
    await bench.worker("default", slots=3)
    await bench.worker("imports", slots=8)
    async with dispatch_round(bench.connection, "default") as held:
        assert held is not None
        assert held.slots == 7
    async with dispatch_round(bench.connection, "unserved") as held:
        assert held is not None
        assert held.slots == 0


async def test_upstream_says_what_waits(bench: "Bench") -> None:
    oldest = await bench.enqueue()
    await bench.change(oldest, scheduled_at=utc_now() - HOUR)
    await bench.enqueue(tenant_id=await bench.other_tenant(), priority=4)
    await bench.enqueue(scheduled_at=utc_now() + timedelta(seconds=30))
    await bench.enqueue(scheduled_at=utc_now() + HOUR)
    await bench.start(await bench.enqueue())
    figures = await upstream(bench.connection, "default", published_total=7, window=1)
    assert (figures.available, figures.running, figures.due_60s) == (2, 1, 1)
    assert 3600 <= figures.oldest_wait_seconds < 3700
    assert figures.enqueued_total == 8  # of the two that are available one is published


async def test_what_is_set_aside_is_counted_by_queue(bench: "Bench") -> None:
    assert await count_aside(bench.connection) == {}
    later = utc_now() + HOUR
    for changes in ({"state": "discarded"}, {"state": "discarded"}, {"state": "retryable"}):
        await bench.change(await bench.enqueue(tenant_id=await bench.other_tenant()), **changes)
    await bench.enqueue(scheduled_at=later)
    await bench.enqueue(queue="mail", scheduled_at=later)
    await bench.enqueue()
    found = await count_aside(bench.connection)
    assert found == {"default": Aside(delayed=2, dead=2), "mail": Aside(delayed=1)}


async def test_upstream_of_an_empty_queue_is_nothing(bench: "Bench") -> None:
    figures = await upstream(bench.connection, "default", published_total=7, window=1)
    assert (figures.available, figures.running, figures.oldest_wait_seconds) == (0, 0, 0)
    assert (figures.due_60s, figures.enqueued_total) == (0, 7)
