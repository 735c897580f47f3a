"""Forgetting rejected rows: they are personal data, and nobody corrects them after weeks.

Safe in any number of processes at once. A batch is one short transaction, so that the rejected rows
of a large file hold up nobody. The import itself, with its counts, stays.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from sqlalchemy import CursorResult, text

from jangada.runtime import Runtime
from jangada.telemetry import get_logger

log = get_logger(__name__)

HOUSEKEEPING_EVERY: Final = timedelta(minutes=10)
PRUNED_AT_ONCE: Final = 5_000

# The import's row is last written when its rejected rows are.
_PRUNE: Final = text("""
    DELETE FROM import_rejects WHERE ctid = ANY(ARRAY(
        SELECT import_rejects.ctid FROM contact_imports
        JOIN import_rejects ON import_rejects.tenant_id = contact_imports.tenant_id
            AND import_rejects.import_id = contact_imports.id
        WHERE contact_imports.updated_at < clock_timestamp() - CAST(:retention AS interval)
        LIMIT :rows FOR UPDATE OF import_rejects SKIP LOCKED
    ))
""")


async def prune_rejects(runtime: Runtime, *, at_once: int = PRUNED_AT_ONCE) -> int:
    """Delete the rejected rows of imports that ended longer ago than the retention says."""
    values = {"retention": runtime.settings.contacts.rejects_retention, "rows": at_once}
    total, found = 0, at_once
    while found == at_once:
        async with runtime.database.system_transaction("retention of rejected rows") as session:
            result = await session.execute(_PRUNE, values)
            found = result.rowcount if isinstance(result, CursorResult) else 0
        total += found
    return total


@asynccontextmanager
async def keeping_house(runtime: Runtime) -> AsyncIterator[None]:
    """Prune now and then for as long as the block lasts; an API process runs in one."""
    task = asyncio.create_task(_prune_forever(runtime), name="contacts: housekeeping")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _prune_forever(runtime: Runtime) -> None:
    while True:
        await asyncio.sleep(HOUSEKEEPING_EVERY.total_seconds())
        try:
            await prune_rejects(runtime)
        except Exception as error:  # noqa: BLE001 - nothing depends on it; the next round will do
            log.warning("pruning_of_rejects_failed", error=type(error).__name__)
