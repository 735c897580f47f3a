"""Contacts and rejected rows as CSV, streamed in short transactions of their own.

UTF-8, commas, CRLF (RFC 4180). No cell runs as a formula in a spreadsheet, and the importer reads
back exactly what is stored: importing an export changes nothing. Rows that are created or deleted
while an export runs may be in it or not; every other row is, once.
"""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Select, func, select

from jangada.contacts.models import Contact, ContactImport, ImportReject
from jangada.contacts.reading.columns import (
    ATTRIBUTE_PREFIX,
    REJECT_COLUMNS,
    Field,
    recognized,
)
from jangada.contacts.schemas import ContactFilter
from jangada.contacts.service import list_rejects, visible
from jangada.contacts.texts import neutralize, unguard
from jangada.db import Database

FIELDS: Final = (Field.NAME, Field.EMAIL, Field.PHONE, Field.COMPANY)
ROWS_AT_ONCE: Final = 2_000


async def list_attribute_names(
    database: Database, tenant_id: UUID, filter: ContactFilter
) -> list[str]:
    """The attributes that any of the contacts has: the columns of an export after the fields."""
    each = func.jsonb_object_keys(Contact.attributes).label("name")
    held = filter(visible(tenant_id)).with_only_columns(each).subquery()
    async with database.read(tenant_id) as session:
        return sorted(await session.scalars(select(held.c.name).distinct()))


async def export_contacts(
    database: Database, tenant_id: UUID, filter: ContactFilter, attributes: Sequence[str]
) -> AsyncIterator[bytes]:
    """The contacts in the order of their ids, with these attributes as columns."""
    yield _csv([[*FIELDS, *map(_header_of, attributes)]])
    scope = filter(visible(tenant_id)).order_by(Contact.id).limit(ROWS_AT_ONCE)
    page = await _contacts(database, tenant_id, scope)
    while page:
        yield _csv(_contact_cells(contact, attributes) for contact in page)
        page = await _contacts(database, tenant_id, scope.where(Contact.id > page[-1].id))


async def export_rejects(database: Database, rejected_by: ContactImport) -> AsyncIterator[bytes]:
    """The rows that an import rejected, to be corrected and imported again.

    Cells are as they came, but for the guard of those that a spreadsheet would run.
    """
    yield _csv([[*REJECT_COLUMNS, *(rejected_by.header or [])]])
    page = await _rejects(database, rejected_by, after_line=0)
    while page:
        yield _csv(_reject_cells(reject) for reject in page)
        page = await _rejects(database, rejected_by, after_line=page[-1].line)


async def _contacts(
    database: Database, tenant_id: UUID, scope: Select[Contact]
) -> Sequence[Contact]:
    async with database.read(tenant_id) as session:
        return (await session.scalars(scope)).all()


async def _rejects(
    database: Database, rejected_by: ContactImport, *, after_line: int
) -> Sequence[ImportReject]:
    tenant_id = rejected_by.tenant_id
    async with database.read(tenant_id) as session:
        return await list_rejects(
            session, tenant_id, rejected_by.id, after_line=after_line, limit=ROWS_AT_ONCE
        )


def _contact_cells(contact: Contact, attributes: Sequence[str]) -> list[str]:
    held = contact.attributes
    fields = [contact.name, contact.email or "", contact.phone or "", contact.company]
    return [*fields, *(held.get(name, "") for name in attributes)]


def _reject_cells(reject: ImportReject) -> list[str]:
    # What is guarded already was so in the file: another guard would change it.
    cells = (unguard(cell) for cell in reject.cells)
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
