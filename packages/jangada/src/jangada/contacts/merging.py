"""The merge of an import: from the stage into the tenant's contacts, all or nothing.

A row belongs to the contact with its key: its e-mail address, else its phone. A row that knows more
than the contact completes it: one with an e-mail address and the phone of a contact that had only
that phone; one with a phone only, when exactly one contact has it. Whose e-mail address and phone
belong to different contacts, or whose phone alone belongs to several, is rejected as ambiguous.
Where several rows could belong to one contact, the one with its key goes first, then the last in
the file; the others become contacts of their own.

Set-based, in one transaction at REPEATABLE READ, so that all statements see the same contacts; what
commits in between makes it fail and be done again, on the stage that is still there. Imports of one
tenant merge one after another.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from psycopg import IsolationLevel, errors, sql

from jangada.contacts.reading.columns import NAME_PARTS, Field, Layout
from jangada.contacts.reading.rows import SEVERAL, rest_name
from jangada.contacts.reasons import Reason
from jangada.contacts.schemas import OnConflict, Statistics
from jangada.contacts.staging import Connection, Stage
from jangada.db import new_id
from jangada.scopes import tenant_scope

ATTEMPTS: Final = 5
_COLLISIONS: Final = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.UniqueViolation,
)

# Held by the session, not the transaction: a snapshot taken before the wait would be out of date.
# It ends with the connection.
_LOCK: Final[LiteralString] = (
    "SELECT pg_advisory_lock(hashtext('jangada.contacts'), hashtext(%(tenant)s::text))"
)
_HAS_CONTACTS: Final[LiteralString] = (
    "SELECT EXISTS (SELECT FROM contacts WHERE tenant_id = %(tenant)s)::integer"
)
_NO_MATCHES: Final[LiteralString] = """
    CREATE TEMPORARY TABLE matches (line bigint, contact_id uuid, is_ambiguous boolean)
    ON COMMIT DROP
"""
_MATCHES: Final[LiteralString] = """
    CREATE TEMPORARY TABLE matches ON COMMIT DROP AS
    WITH owned AS (
        SELECT phone, count(*) AS owners, (array_agg(id))[1] AS any_id FROM contacts
        WHERE tenant_id = {tenant} AND phone IN (SELECT phone FROM latest)
        GROUP BY phone
    ), found AS (
        SELECT latest.line, coalesce(owned.owners, 0) AS owners, owned.any_id,
            latest.email IS NOT NULL AS has_email,
            CASE WHEN latest.email IS NULL THEN bare.id ELSE exact.id END AS key_id,
            bare.id AS bare_id,
            latest.phone IS NOT NULL AND exact.phone IS DISTINCT FROM latest.phone AS is_new_phone
        FROM latest
        LEFT JOIN contacts exact
            ON exact.tenant_id = {tenant} AND exact.email = latest.email
        LEFT JOIN contacts bare
            ON bare.tenant_id = {tenant} AND bare.phone = latest.phone AND bare.email IS NULL
        LEFT JOIN owned ON owned.phone = latest.phone
    ), judged AS (
        SELECT line, key_id IS NOT NULL AS is_exact,
            CASE WHEN has_email THEN key_id IS NOT NULL AND is_new_phone AND owners > 0
                ELSE key_id IS NULL AND owners > 1 END AS is_ambiguous,
            coalesce(key_id, bare_id, CASE WHEN NOT has_email THEN any_id END) AS contact_id
        FROM found
    ), ranked AS (
        SELECT *, row_number() OVER (
            PARTITION BY is_ambiguous, contact_id ORDER BY is_exact DESC, line DESC) AS place
        FROM judged WHERE is_ambiguous OR contact_id IS NOT NULL
    )
    SELECT line, contact_id, is_ambiguous FROM ranked WHERE is_ambiguous OR place = 1
"""
_COUNT_MATCHED: Final[LiteralString] = "SELECT count(*) FROM matches WHERE NOT is_ambiguous"
_COUNT_AMBIGUOUS: Final[LiteralString] = "SELECT count(*) FROM matches WHERE is_ambiguous"
_CHANGED: Final[LiteralString] = """
    matches JOIN latest USING (line)
    WHERE contacts.tenant_id = %(tenant)s AND contacts.id = matches.contact_id
        AND NOT matches.is_ambiguous
        AND (contacts.email IS DISTINCT FROM coalesce(latest.email, contacts.email)
            OR contacts.phone IS DISTINCT FROM coalesce(latest.phone, contacts.phone)
            OR latest.name NOT IN ('', contacts.name)
            OR latest.company NOT IN ('', contacts.company)
            OR NOT contacts.attributes @> coalesce(latest.attributes, '{}'))
"""
_UPDATE: Final[LiteralString] = f"""
    UPDATE contacts SET
        email = coalesce(latest.email, contacts.email),
        phone = coalesce(latest.phone, contacts.phone),
        name = coalesce(nullif(latest.name, ''), contacts.name),
        name_key = coalesce(nullif(latest.name_key, ''), contacts.name_key),
        company = coalesce(nullif(latest.company, ''), contacts.company),
        attributes = contacts.attributes || coalesce(latest.attributes, '{{}}'),
        updated_at = now()
    FROM {_CHANGED}
"""  # noqa: S608 - made of constants only
_COUNT_CHANGED: Final[LiteralString] = f"SELECT count(*) FROM contacts, {_CHANGED}"  # noqa: S608 - made of constants only

# UUIDv7 with a counter behind the time (RFC 9562, 6.2): ids come in order, the index stays dense.
# The counter's upper 12 bits stand between version and variant, its lower 20 behind them.
_INSERT: Final[LiteralString] = """
    INSERT INTO contacts (tenant_id, id, email, phone, name, name_key, company, attributes)
    SELECT %(tenant)s,
        (%(time)s || to_hex((7::bigint << 36) + (number >> 20 << 24) + (8 << 20)
            + (number & 1048575)) || %(random)s)::uuid,
        email, phone, name, name_key, company, coalesce(attributes, '{}')
    FROM (
        SELECT latest.*, row_number() OVER () AS number FROM latest
        WHERE NOT EXISTS (SELECT FROM matches WHERE matches.line = latest.line)
    ) fresh
"""
_KEEP_REJECTS: Final[LiteralString] = """
    INSERT INTO import_rejects (tenant_id, import_id, line, column_name, reason, cells)
    SELECT %(tenant)s, %(import)s, line, column_name, reason, cells FROM staged_rejects
    ORDER BY line
"""
_COUNT_REASONS: Final[LiteralString] = (
    "SELECT reason, count(*) FROM staged_rejects GROUP BY reason ORDER BY reason"
)


@dataclass(frozen=True, slots=True)
class Merge:
    """What is merged where, and how."""

    tenant_id: UUID
    import_id: UUID
    layout: Layout
    on_conflict: OnConflict
    validate_only: bool


type Conclude = Callable[[Statistics], Awaitable[None]]


async def merge(stage: Stage, order: Merge, conclude: Conclude) -> Statistics:
    """Merge the stage; `conclude` is called with the counts as the transaction's last act."""
    connection = stage.connection
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await connection.execute(_LOCK, {"tenant": order.tenant_id})
    for _ in range(ATTEMPTS - 1):
        with suppress(*_COLLISIONS):
            return await _merge_once(stage, order, conclude)
    return await _merge_once(stage, order, conclude)


async def _merge_once(stage: Stage, order: Merge, conclude: Conclude) -> Statistics:
    async with tenant_scope(stage.connection, order.tenant_id) as connection:
        matched, ambiguous = await _match(connection, order)
        inserted = stage.latest - matched - ambiguous
        updated = await _write(connection, order, inserted)
        is_skipped = order.on_conflict is OnConflict.SKIP
        statistics = Statistics(
            rows=stage.rows,
            inserted=inserted,
            updated=updated,
            unchanged=0 if is_skipped else matched - updated,
            skipped=matched if is_skipped else 0,
            duplicates=stage.good - stage.latest,
            rejected=stage.rejected + ambiguous,
            rejected_by_reason=await _keep_rejects(connection, order),
        )
        await conclude(statistics)
    return statistics


async def _match(connection: Connection, order: Merge) -> tuple[int, int]:
    """Find the rows' contacts: how many rows have one, and how many are ambiguous."""
    if not await _count(connection, _HAS_CONTACTS, {"tenant": order.tenant_id}):
        await connection.execute(_NO_MATCHES)
        return 0, 0
    await connection.execute("ANALYZE latest")
    tenant = sql.Literal(order.tenant_id)
    await connection.execute(sql.SQL(_MATCHES).format(tenant=tenant))
    await connection.execute("ANALYZE matches")
    ambiguous = await _count(connection, _COUNT_AMBIGUOUS)
    if ambiguous:
        await connection.execute(_ambiguous_rejects(order.layout))
    return await _count(connection, _COUNT_MATCHED), ambiguous


async def _write(connection: Connection, order: Merge, inserted: int) -> int:
    """Update and insert as the order allows; returns how many were or would be updated."""
    tenant = {"tenant": order.tenant_id}
    is_updating = order.on_conflict is OnConflict.UPDATE
    if order.validate_only:
        return await _count(connection, _COUNT_CHANGED, tenant) if is_updating else 0
    updated = (await connection.execute(_UPDATE, tenant)).rowcount if is_updating else 0
    model = new_id().hex
    numbered = {**tenant, "time": model[:12], "random": model[22:]}
    written = (await connection.execute(_INSERT, numbered)).rowcount
    if written != inserted:
        raise RuntimeError(f"{written} contacts were inserted instead of {inserted}")
    return updated


async def _keep_rejects(connection: Connection, order: Merge) -> dict[str, int]:
    """Store the rejected rows; returns how many there are of each reason."""
    await connection.execute(_KEEP_REJECTS, {"tenant": order.tenant_id, "import": order.import_id})
    cursor = await connection.execute(_COUNT_REASONS)
    return dict(await cursor.fetchall())


async def _count(
    connection: Connection, query: LiteralString, parameters: dict[str, UUID] | None = None
) -> int:
    row = await (await connection.execute(query, parameters)).fetchone()
    return int(row[0]) if row else 0


# Numbers in names of the header itself don't count: a series up to them could be of any length.
_OVERFLOW: Final[LiteralString] = """
    ARRAY(
        SELECT coalesce(attributes ->> ('column_' || number), '') FROM generate_series({first}, (
            SELECT max(substring(name FROM 8)::integer) FROM jsonb_object_keys(attributes) name
            WHERE name ~ '^column_[0-9]{{1,9}}$' AND name <> ALL({names})
        )) number
    )
"""


def _ambiguous_rejects(layout: Layout) -> sql.Composed:
    """The ambiguous rows as rejects: their cells in normal form, which reads the same."""
    cells = [_cell(layout, index) for index in range(len(layout.names))]
    return sql.SQL(
        "INSERT INTO staged_rejects (line, column_name, reason, cells)"
        " SELECT line, {column}, {reason}, to_jsonb(ARRAY[{cells}]::text[] || {overflow})"
        " FROM matches JOIN latest USING (line) WHERE is_ambiguous"
    ).format(
        column=sql.Literal(layout.names[layout.columns(Field.PHONE)[0]]),
        reason=sql.Literal(str(Reason.AMBIGUOUS_MATCH)),
        cells=sql.SQL(", ").join(cells),
        overflow=sql.SQL(_OVERFLOW).format(
            first=layout.positions + 1, names=sql.Literal([*layout.names])
        ),
    )


def _cell(layout: Layout, index: int) -> sql.Composed:
    """What a row's cell in this column said, from the staged values."""
    name, value = layout.names[index], _shown(layout).get(index)
    if value is None:
        return sql.SQL("coalesce(attributes ->> {}, '')").format(sql.Literal(name))
    first = sql.SQL("coalesce({}, '')").format(sql.Identifier(value))
    rest = rest_name(name)
    if value not in {"email", "phone"} or rest in layout.names:
        return first
    return sql.SQL("{} || coalesce({} || (attributes ->> {}), '')").format(
        first, sql.Literal(f" {SEVERAL} "), sql.Literal(rest)
    )


def _shown(layout: Layout) -> dict[int, str]:
    """The first column of each field with the staged value that it shows."""
    names = [column for part in (Field.NAME, *NAME_PARTS) for column in layout.columns(part)]
    columns = {
        "email": layout.columns(Field.EMAIL),
        "phone": layout.columns(Field.PHONE),
        "name": names,
        "company": layout.columns(Field.COMPANY),
    }
    return {found[0]: value for value, found in columns.items() if found}
