"""Contacts and rejected rows as CSV, streamed in short transactions of their own.

UTF-8, commas, CRLF (RFC 4180). No cell runs as a formula in a spreadsheet, and the importer reads
back exactly what is stored: importing an export changes nothing. Rows that are created or deleted
while an export runs may be in it or not; every other row is, once. The file is made in threads and
by so many cells at a time that the event loop goes on, whatever the contacts hold.
"""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Select, func, select

from jangada.contacts.errors import TooManyAttributes
from jangada.contacts.models import Contact, ContactImport, ImportReject
from jangada.contacts.reading.columns import (
    ATTRIBUTE_PREFIX,
    REJECT_COLUMNS,
    Field,
    recognized,
)
from jangada.contacts.reasons import Reason
from jangada.contacts.schemas import ContactFilter
from jangada.contacts.service import list_rejects, visible
from jangada.contacts.texts import neutralize, unguard
from jangada.db import Database

FIELDS: Final = (Field.NAME, Field.EMAIL, Field.PHONE, Field.COMPANY)
ROWS_AT_ONCE: Final = 500
CELLS_AT_ONCE: Final = 10_000


async def list_attribute_names(
    database: Database, tenant_id: UUID, filter: ContactFilter, *, max_columns: int
) -> list[str]:
    """The attributes that any of the contacts has: the columns of an export after the fields.

    Raises `TooManyAttributes` where the export would have more columns than an import may.
    """
    each = func.jsonb_object_keys(Contact.attributes).label("name")
    held = filter(visible(tenant_id)).with_only_columns(each).subquery()
    room = max(0, max_columns - len(FIELDS))
    async with database.read(tenant_id) as session:
        names = sorted(await session.scalars(select(held.c.name).distinct().limit(room + 1)))
    if len(names) > room:
        raise TooManyAttributes(
            f"The contacts have more than {room} different attributes, and a file has "
            f"{max_columns} columns at most. Export fewer contacts at a time, by a filter."
        )
    return names


async def export_contacts(
    database: Database, tenant_id: UUID, filter: ContactFilter, attributes: Sequence[str]
) -> AsyncIterator[bytes]:
    """The contacts in the order of their ids, with these attributes as columns."""
    header = [*FIELDS, *map(_header_of, attributes)]
    yield _csv([header])
    rows = _rows_at_once(len(header))
    scope = filter(visible(tenant_id)).order_by(Contact.id).limit(rows)
    page = await _contacts(database, tenant_id, scope)
    while page:
        cells = (_contact_cells(contact, attributes) for contact in page)
        yield await asyncio.to_thread(_csv, cells)
        page = await _contacts(database, tenant_id, scope.where(Contact.id > page[-1].id))


async def export_rejects(database: Database, rejected_by: ContactImport) -> AsyncIterator[bytes]:
    """The rows that an import rejected, to be corrected and imported again.

    Cells are as they came, but for the guard of those that a spreadsheet would run. The columns of
    an earlier reject file are left out: a row has one place and reason.
    """
    came = rejected_by.header or []
    old = frozenset(place for place, name in enumerate(came) if name in REJECT_COLUMNS)
    header = [*REJECT_COLUMNS, *_without(old, came)]
    yield _csv([header])
    rows = _rows_at_once(len(header))
    page = await _rejects(database, rejected_by, after_line=0, limit=rows)
    while page:
        cells = (_reject_cells(reject, old) for reject in page)
        yield await asyncio.to_thread(_csv, cells)
        page = await _rejects(database, rejected_by, after_line=page[-1].line, limit=rows)


def _rows_at_once(columns: int) -> int:
    return min(ROWS_AT_ONCE, CELLS_AT_ONCE // columns + 1)


async def _contacts(
    database: Database, tenant_id: UUID, scope: Select[Contact]
) -> Sequence[Contact]:
    async with database.read(tenant_id) as session:
        return (await session.scalars(scope)).all()


async def _rejects(
    database: Database, rejected_by: ContactImport, *, after_line: int, limit: int
) -> Sequence[ImportReject]:
    tenant_id = rejected_by.tenant_id
    async with database.read(tenant_id) as session:
        return await list_rejects(
            session, tenant_id, rejected_by.id, after_line=after_line, limit=limit
        )


def _contact_cells(contact: Contact, attributes: Sequence[str]) -> list[str]:
    held = contact.attributes
    fields = [contact.name, contact.email or "", contact.phone or "", contact.company]
    return [*fields, *(held.get(name, "") for name in attributes)]


def _without(places: Collection[int], cells: Sequence[str]) -> list[str]:
    return [cell for place, cell in enumerate(cells) if place not in places]


def _reject_cells(reject: ImportReject, left_out: Collection[int]) -> list[str]:
    # What is guarded already was so in the file: another guard would change it. Ambiguous rows come
    # from the stage, where no cell has its guard any more.
    is_bare = reject.reason == Reason.AMBIGUOUS_MATCH
    came = _without(left_out, reject.cells)
    cells = came if is_bare else [unguard(cell) for cell in came]
    return [str(reject.line), reject.column_name, reject.reason, *cells]


def _header_of(attribute: str) -> str:
    """The attribute's name, made such that the importer takes it for nothing else."""
    is_plain = recognized(attribute) is Field.ATTRIBUTE
    if is_plain and not attribute.startswith(ATTRIBUTE_PREFIX):
        return attribute
    return f"{ATTRIBUTE_PREFIX}{attribute}"


def _csv(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([neutralize(cell) for cell in row] for row in rows)
    return text.getvalue().encode()
