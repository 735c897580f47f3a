"""What of imports is forgotten after a while, and what stays."""

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from jangada.contacts import service
from jangada.contacts.housekeeping import prune_rejects
from jangada.runtime import Runtime

if TYPE_CHECKING:
    from packages.jangada.tests.contacts.conftest import Importer

pytestmark = pytest.mark.anyio


async def test_rejects_are_forgotten_after_the_retention(
    importer: "Importer", runtime: Runtime
) -> None:
    file = "email\nbad\nworse\nworst\na@b.co\n"
    old, young = await importer.start(file), await importer.start(file)
    for job in (old, young):
        assert (await importer.run(job))["rejected"] == 3
    kept = await importer.rejects(young)
    assert await prune_rejects(runtime) == 0
    async with runtime.database.system_transaction("test") as session:
        aged = text("UPDATE contact_imports SET updated_at = now() - :age WHERE id = :id")
        age = runtime.settings.contacts.rejects_retention + timedelta(hours=1)
        await session.execute(aged, {"age": age, "id": old.id})
    assert await prune_rejects(runtime, at_once=2) == 3
    assert await importer.rejects(old) == "_line,_column,_reason,email\r\n"
    assert await importer.rejects(young) == kept
    async with runtime.database.read(importer.tenant_id) as session:
        _, job = await service.get_import(session, importer.tenant_id, old.id)
    assert job.result is not None
    assert job.result["rejected"] == 3
