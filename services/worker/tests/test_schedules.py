"""Schedules through the real dispatchers: each fire enqueues one job, whoever dies."""

import asyncio
import signal
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from jangada.schedules import service
from jangada.schedules.models import Misfire, Schedule
from jangada_queue.patience import Stop
from jangada_worker.dispatcher import Dispatcher
from jangada_worker.ping import Ping

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = pytest.mark.anyio


async def declare(raft: "Raft", cron: str, name: str = "sign of life") -> Schedule:
    tenant = raft.person.tenant_id
    async with raft.runtime.database.transaction(tenant) as session:
        return await service.put_schedule(
            session, Ping(), tenant_id=tenant, name=name, cron=cron, misfire=Misfire.SKIP
        )


async def fires(raft: "Raft", schedule: Schedule) -> list[str]:
    """The times at which it fired, as its jobs have them."""
    rows = await raft.execute(
        "SELECT metadata->'schedule'->>'fire_at' FROM jobs"
        " WHERE metadata->'schedule'->>'id' = :id ORDER BY 1",
        id=str(schedule.id),
    )
    return [row[0] for row in rows]


async def until_fired(raft: "Raft", schedule: Schedule, times: int) -> list[str]:
    async def fired() -> list[str]:
        found = await fires(raft, schedule)
        return found if len(found) >= times else []

    found: list[str] = await raft.until(fired)
    return found


async def test_a_schedule_fires_and_its_job_runs(raft: "Raft") -> None:
    await raft.dispatcher()
    await raft.worker()
    schedule = await declare(raft, "* * * * * *")
    await until_fired(raft, schedule, 2)
    (row,) = await raft.execute(
        "SELECT id, tenant_id FROM jobs WHERE kind = 'ping' ORDER BY id LIMIT 1"
    )

    async def completed() -> bool:
        found = await raft.execute("SELECT state FROM jobs WHERE id = :id", id=UUID(str(row[0])))
        return bool(found[0][0] == "completed")

    await raft.until(completed)
    assert row[1] == raft.person.tenant_id


async def test_each_second_is_fired_once_by_any_number_of_dispatchers(raft: "Raft") -> None:
    """One of them is killed in the midst of it, and Valkey is emptied."""
    doomed = await raft.dispatcher_process()
    schedule = await declare(raft, "* * * * * *")
    await raft.dispatcher()
    stop = Stop()
    rival = asyncio.create_task(Dispatcher(raft.runtime, CollectorRegistry(), stop).run())
    await until_fired(raft, schedule, 2)
    doomed.send(signal.SIGKILL)
    await raft.runtime.valkey.flushall()
    found = await until_fired(raft, schedule, 5)
    stop.ask()
    await rival
    assert len(set(found)) == len(found)
    assert len({int(at[17:19]) for at in found[:5]}) == 5


async def test_a_dispatcher_that_takes_over_fires_what_fell_between(raft: "Raft") -> None:
    doomed = await raft.dispatcher_process()
    schedule = await declare(raft, "* * * * * *")
    await until_fired(raft, schedule, 1)
    doomed.send(signal.SIGKILL)
    await doomed.ended()
    before = await fires(raft, schedule)
    seconds = "SELECT extract(epoch FROM clock_timestamp() - max(last_fired_at)) FROM schedules"

    async def two_seconds_later() -> bool:
        return bool((await raft.execute(seconds))[0][0] > 2)

    await raft.until(two_seconds_later)
    await raft.dispatcher()
    found = await until_fired(raft, schedule, len(before) + 2)
    gaps = await raft.execute(
        "SELECT max(gap) FROM (SELECT at - lag(at) OVER (ORDER BY at) AS gap FROM"
        " (SELECT (metadata->'schedule'->>'fire_at')::timestamptz AS at FROM jobs) fires) gaps"
    )
    assert len(found) > len(before)
    assert gaps[0][0].total_seconds() == 1
