"""What is enqueued is counted by whoever commits it, and by nobody else."""

import pytest
from prometheus_client import CollectorRegistry

from jangada.db import Database
from jangada.jobs import service
from jangada.jobs.metrics import count_enqueued
from jangada.jobs.schemas import JobArgs, Unique
from jangada.testing import Person

pytestmark = pytest.mark.anyio


class Post(JobArgs):
    """A letter."""

    kind = "test.post"
    queue = "letters"


class Wire(JobArgs):
    """A telegram."""

    kind = "test.wire"
    queue = "letters"


@pytest.fixture
def registry(database: Database) -> CollectorRegistry:
    registry = CollectorRegistry()
    database.tally = count_enqueued(registry)
    return registry


def counted(registry: CollectorRegistry, kind: str) -> float | None:
    labels = {"queue": "letters", "kind": kind}
    return registry.get_sample_value("jangada_job_enqueued_total", labels)


async def test_what_is_committed_is_counted(
    database: Database, person: Person, registry: CollectorRegistry
) -> None:
    for _ in range(2):
        async with database.transaction(person.tenant_id) as session:
            await service.enqueue(session, Post(), tenant_id=person.tenant_id)
            batch = [Wire(), Post(), Wire()]
            await service.enqueue_many(session, batch, tenant_id=person.tenant_id)
    assert (counted(registry, "test.post"), counted(registry, "test.wire")) == (4, 4)


async def test_what_is_rolled_back_is_not(
    database: Database, person: Person, registry: CollectorRegistry
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction(person.tenant_id) as session:
            await service.enqueue(session, Post(), tenant_id=person.tenant_id)
            raise ZeroDivisionError
    assert counted(registry, "test.post") is None


async def test_a_duplicate_is_not(
    database: Database, person: Person, registry: CollectorRegistry
) -> None:
    for _ in range(2):
        async with database.transaction(person.tenant_id) as session:
            await service.enqueue(session, Post(), tenant_id=person.tenant_id, unique=Unique())
    assert counted(registry, "test.post") == 1
