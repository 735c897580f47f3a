"""The database pool in the metrics."""

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from jangada.db import Database
from jangada.testing import Person
from jangada_api.pool_metrics import watch_pool

pytestmark = pytest.mark.anyio


def _count(registry: CollectorRegistry, state: str) -> float | None:
    return registry.get_sample_value("db_client_connection_count", {"state": state})


async def test_a_transaction_shows_as_a_used_connection(database: Database, person: Person) -> None:
    registry = CollectorRegistry()
    forget = watch_pool(registry, database.pool_usage)
    async with database.transaction(person.tenant_id):
        assert _count(registry, "used") == 1
    assert (_count(registry, "used"), _count(registry, "idle")) == (0, 1)
    maximum = registry.get_sample_value("db_client_connection_max")
    assert maximum == database.settings.pool_size
    forget()
    assert _count(registry, "used") is None


async def test_a_served_application_exports_its_pool(app: FastAPI) -> None:
    assert _count(app.state.registry, "used") is not None
