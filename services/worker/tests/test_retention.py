"""The dispatcher forgets finished jobs as its settings say."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from jangada.db import Database
from jangada.jobs.delivery.connection import DirectConnection
from jangada.jobs.models import JobState
from jangada.jobs_settings import JobsSettings
from jangada.testing import Person
from jangada_worker import retention
from jangada_worker.metrics import DispatcherMetrics
from jangada_worker.retention import Retention, retentions

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)
DEADLINE = timedelta(seconds=30)

FINISHED = text("""
    INSERT INTO jobs (tenant_id, id, kind, queue, state, args, max_attempts, finished_at)
    SELECT :tenant, gen_random_uuid(), 'test.old', 'default', :state, '{}', 20,
        now() - make_interval(days => :days, secs => number)
    FROM generate_series(1, :jobs) AS number
""")


async def finished(
    database: Database, person: Person, state: str, *, days: int, jobs: int = 1
) -> None:
    values = {"tenant": person.tenant_id, "state": state, "days": days, "jobs": jobs}
    async with database.transaction(person.tenant_id) as session:
        await session.execute(FINISHED, values)


async def left(database: Database, person: Person) -> dict[str, int]:
    async with database.read(person.tenant_id) as session:
        rows = await session.execute(text("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {row[0]: row[1] for row in rows}


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[DirectConnection]:
    connection = DirectConnection(database, deadline=DEADLINE)
    yield connection
    await connection.close()


def test_each_final_state_has_its_retention_and_zero_is_for_ever() -> None:
    assert retentions(JobsSettings()) == {
        JobState.COMPLETED: 7 * DAY,
        JobState.CANCELLED: 7 * DAY,
        JobState.DISCARDED: 90 * DAY,
    }
    chosen = JobsSettings(completed_retention=timedelta(0), discarded_retention=DAY)
    assert retentions(chosen) == {JobState.CANCELLED: 7 * DAY, JobState.DISCARDED: DAY}


async def test_turns_go_on_until_nothing_is_left_and_say_how_far_they_are(
    database: Database,
    person: Person,
    connection: DirectConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A turn is over after a moment: with none left, after the first batch."""
    monkeypatch.setattr(retention, "LONGEST_TURN", 0.0)
    await finished(database, person, "completed", days=8, jobs=2500)
    await finished(database, person, "cancelled", days=6)
    registry = CollectorRegistry()
    keeper = Retention(connection, DispatcherMetrics(registry), retentions(JobsSettings()))
    seen = []
    for _ in range(3):
        await keeper.take_turn()
        labels = {"state": "completed"}
        behind = registry.get_sample_value("jangada_job_prune_behind_seconds", labels)
        assert behind is not None
        seen.append((registry.get_sample_value("jangada_job_pruned_total", labels), behind > 0))
    assert seen == [(1000, True), (2000, True), (2500, False)]
    assert await left(database, person) == {"cancelled": 1}


async def test_now_and_then_it_begins_anew(
    database: Database,
    person: Person,
    connection: DirectConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What ended before the last batch's end isn't looked at until then."""
    keeper = Retention(
        connection, DispatcherMetrics(CollectorRegistry()), {JobState.COMPLETED: DAY}
    )
    await finished(database, person, "completed", days=2)
    await keeper.take_turn()
    await finished(database, person, "completed", days=3)
    await keeper.take_turn()
    assert await left(database, person) == {"completed": 1}
    monkeypatch.setattr(retention, "FROM_THE_BEGINNING_EVERY", timedelta(0))
    await keeper.take_turn()
    assert await left(database, person) == {}


async def test_a_dispatcher_prunes(raft: "Raft") -> None:
    database, person = raft.runtime.database, raft.person
    for state, days in (("completed", 8), ("cancelled", 8), ("discarded", 8), ("discarded", 91)):
        await finished(database, person, state, days=days)
    await raft.dispatcher()

    async def is_pruned() -> bool:
        return await left(database, person) == {"discarded": 1}

    assert await raft.until(is_pruned)
