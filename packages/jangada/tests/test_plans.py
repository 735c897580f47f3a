"""A page reads the rows that it shows, whatever the planner knows of the tenant."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.contacts import service as contacts
from jangada.contacts.schemas import ContactFilter
from jangada.crud import CursorSigner, Page, PageRequest
from jangada.db import Database
from jangada.jobs import service as jobs
from jangada.jobs.models import JobState
from jangada.jobs.schemas import JobFilter
from jangada.testing import Person, make_person

pytestmark = pytest.mark.anyio

TENANTS: Final = 4
EACH: Final = 10_000
"""So many that a primary key is a level higher than an index of names that are all the same."""
LIMIT: Final = 3
SIGNER: Final = CursorSigner(b"k" * 32)

FILL: Final = {
    "contacts": """
        INSERT INTO contacts (tenant_id, id, email, name, name_key)
        SELECT :tenant, (lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000')::uuid,
            'ana.' || n || '@example.com', 'Ana', 'ana'
        FROM generate_series(1, :rows) AS n""",
    "jobs": """
        INSERT INTO jobs (tenant_id, id, kind, queue, state, args, max_attempts, finished_at)
        SELECT :tenant, (lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000')::uuid,
            'a', 'default', 'discarded', '{}', 1, now()
        FROM generate_series(1, :rows) AS n""",
}
READ: Final = """
    SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = :table
"""

type Show = Callable[[AsyncSession, UUID, PageRequest], Awaitable[Page[Any]]]


async def list_contacts(session: AsyncSession, tenant_id: UUID, page: PageRequest) -> Page[Any]:
    return await contacts.list_contacts(session, tenant_id, ContactFilter(), page)


async def list_jobs(session: AsyncSession, tenant_id: UUID, page: PageRequest) -> Page[Any]:
    return await jobs.list_jobs(session, tenant_id, JobFilter(), page)


async def list_discarded(session: AsyncSession, tenant_id: UUID, page: PageRequest) -> Page[Any]:
    return await jobs.list_jobs(session, tenant_id, JobFilter(state=JobState.DISCARDED), page)


@dataclass(frozen=True, slots=True)
class List:
    """What shows pages of a table."""

    table: str
    show: Show


LISTS: Final = [
    List("contacts", list_contacts),
    List("jobs", list_jobs),
    List("jobs", list_discarded),
]


async def fill(database: Database, table: str, tenant_id: UUID) -> None:
    async with database.transaction(tenant_id) as session:
        await session.execute(text(FILL[table]), {"tenant": tenant_id, "rows": EACH})


async def rows_read(database: Database, tenant_id: UUID, listed: List) -> Sequence[int]:
    """By each of three pages in a row, whose cursors are those of the one before."""
    cursor, read = None, []
    for _ in range(3):
        async with database.read(tenant_id) as session:
            before = await session.scalar(text(READ), {"table": listed.table})
            page = await listed.show(session, tenant_id, PageRequest(SIGNER, LIMIT, cursor))
            read.append(await session.scalar(text(READ), {"table": listed.table}) - before)
        assert len(page.data) == LIMIT
        cursor = page.next_cursor
    return read


@pytest.mark.parametrize("listed", LISTS, ids=lambda each: each.show.__name__)
@pytest.mark.parametrize("is_known", ["never analysed", "unknown", "known"])
async def test_a_page_reads_what_it_shows(
    database: Database, person: Person, listed: List, is_known: str
) -> None:
    """And one more, which says whether there are more.

    A tenant is unknown while it has come since the last ANALYZE.
    """
    async with database.direct() as connection:
        for number in range(1, TENANTS):
            other = await make_person(database, f"Other {number}")
            await fill(database, listed.table, other.tenant_id)
        if is_known == "unknown":
            await connection.execute(b"ANALYZE " + listed.table.encode())
        await fill(database, listed.table, person.tenant_id)
        if is_known == "known":
            await connection.execute(b"ANALYZE " + listed.table.encode())
    assert await rows_read(database, person.tenant_id, listed) == [LIMIT + 1] * 3
