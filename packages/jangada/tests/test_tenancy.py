"""Raw SQL in one tenant's session against the rows of another, for every table that there is.

The rows are made from PostgreSQL's catalogue, so a new table is attacked as soon as it exists; one
whose constraints the generated values don't satisfy fails here until `VALUES` has what it needs.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from jangada.db import Database
from jangada.scopes import system_scope, tenant_scope

pytestmark = pytest.mark.anyio

VALUES: Final[dict[tuple[str, str], Any]] = {
    ("tenants", "kind"): "team",
    ("jobs", "state"): "available",
    ("files", "state"): "uploading",
    ("schedules", "misfire"): "once",
    ("files", "lease_expires_at"): datetime(2026, 3, 1, tzinfo=UTC),
    ("contacts", "phone"): "+5511912345678",
}
"""Where a constraint wants a particular value."""

type Raw = psycopg.AsyncConnection[TupleRow]
type Row = dict[str, Any]


def value_of(kind: str) -> Any:  # noqa: ANN401 - of any type
    """Something that fits a column of this type."""
    made: dict[str, Any] = {
        "uuid": uuid4(),
        "text": uuid4().hex,
        "int2": 1,
        "int4": 1,
        "int8": 1,
        "bool": False,
        "timestamptz": datetime(2026, 3, 1, tzinfo=UTC),
        "jsonb": Jsonb({}),
        "bytea": b"x" * 32,
        "_text": [],
    }
    return made[kind]


@dataclass(frozen=True)
class Key:
    """A foreign key: columns of ours that repeat columns of another table."""

    columns: tuple[str, ...]
    table: str
    there: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A protected table as the catalogue describes it."""

    name: str
    required: dict[str, str]
    keys: tuple[Key, ...]
    primary: tuple[str, ...]
    owner: str
    """The column that says whose a row is; the user's rows are shared through memberships."""

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.name)

    @property
    def needs(self) -> set[str]:
        """The tables that must have a row before."""
        owners = {"tenants"} if self.owner == "tenant_id" else set()
        return owners | {key.table for key in self.keys} - {self.name}


@dataclass
class World:
    """Two tenants with a row in every table, and the tables in the order in which rows are made."""

    tables: list[Table]
    mine: dict[str, Row] = field(default_factory=dict)
    theirs: dict[str, Row] = field(default_factory=dict)

    @property
    def me(self) -> UUID:
        return UUID(str(self.mine["tenants"]["id"]))


COLUMNS: Final = """
    SELECT relname, attname, typname, attnotnull AND NOT atthasdef FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid JOIN pg_type ON pg_type.oid = atttypid
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relrowsecurity
    AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
CONSTRAINTS: Final = """
    SELECT conrelid::regclass::text, contype, confrelid::regclass::text,
        ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS k (number, position)
            JOIN pg_attribute ON attrelid = conrelid AND attnum = number ORDER BY position),
        ARRAY(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY AS k (number, position)
            JOIN pg_attribute ON attrelid = confrelid AND attnum = number ORDER BY position)
    FROM pg_constraint WHERE contype IN ('f', 'p') AND connamespace = 'public'::regnamespace
"""


async def tables_of(connection: Raw) -> list[Table]:
    columns = await (await connection.execute(COLUMNS.encode())).fetchall()
    constraints = await (await connection.execute(CONSTRAINTS.encode())).fetchall()
    found = []
    for name in sorted({row[0] for row in columns}):
        mine = {row[1]: row[2] for row in columns if row[0] == name}
        wanted = {row[1] for row in columns if row[0] == name and row[3]}
        wanted |= {column for table, column in VALUES if table == name}
        keys = [
            Key(tuple(here), other, tuple(there))
            for table, kind, other, here, there in constraints
            if table == name and kind == "f"
        ]
        primary = next(tuple(row[3]) for row in constraints if row[:2] == (name, "p"))
        wanted |= {column for key in keys for column in key.columns}
        owner = "tenant_id" if "tenant_id" in mine else "id"
        required = {column: mine[column] for column in mine if column in wanted}
        found.append(Table(name, required, tuple(keys), primary, owner))
    return in_order(found)


def in_order(tables: Iterable[Table]) -> list[Table]:
    """Each after those that it refers to, tenants first."""
    waiting, done = list(tables), list[Table]()
    while waiting:
        known = {table.name for table in done}
        ready = [table for table in waiting if table.needs <= known]
        assert ready, f"foreign keys in a circle: {waiting}"
        done += ready
        waiting = [table for table in waiting if table not in ready]
    return done


def row_for(table: Table, rows: dict[str, Row]) -> Row:
    """A row that refers to the rows given."""
    row: Row = {}
    for column, kind in table.required.items():
        row[column] = VALUES.get((table.name, column), value_of(kind))
    if table.owner == "tenant_id":
        row["tenant_id"] = rows["tenants"]["id"]
    for key in table.keys:
        row |= {
            here: rows[key.table][there] for here, there in zip(key.columns, key.there, strict=True)
        }
    return row


async def put(connection: Raw, table: Table, row: Row) -> Row:
    """Insert it, and answer the whole row as it is then."""
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING *").format(
        table.identifier,
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(sql.Placeholder() * len(row)),
    )
    cursor = await connection.execute(statement, list(row.values()))
    stored = await cursor.fetchone()
    assert stored is not None
    return dict(zip([column.name for column in cursor.description or ()], stored, strict=True))


async def make_rows(connection: Raw, tables: list[Table]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    async with system_scope(connection, "test"):
        for table in tables:
            rows[table.name] = await put(connection, table, row_for(table, rows))
    return rows


async def everything(connection: Raw, world: World) -> list[list[TupleRow]]:
    async with system_scope(connection, "test"):
        return [
            await (
                await connection.execute(
                    sql.SQL("SELECT * FROM {} ORDER BY 1, 2").format(t.identifier)
                )
            ).fetchall()
            for t in world.tables
        ]


@pytest.fixture
async def raw(database: Database) -> AsyncIterator[Raw]:
    async with database.direct() as connection:
        yield connection


@pytest.fixture
async def world(raw: Raw) -> World:
    tables = await tables_of(raw)
    world = World(tables)
    world.mine, world.theirs = await make_rows(raw, tables), await make_rows(raw, tables)
    return world


@pytest.fixture
async def unharmed(raw: Raw, world: World) -> AsyncIterator[None]:
    """At the end of the test both tenants have exactly what they had."""
    before = await everything(raw, world)
    yield
    assert await everything(raw, world) == before


async def changed(connection: Raw, statement: sql.Composed, *values: object) -> int:
    return (await connection.execute(statement, values)).rowcount


@asynccontextmanager
async def refused(connection: Raw, *errors: type[psycopg.Error]) -> AsyncIterator[None]:
    """The block's statement fails by one of these, and the transaction goes on."""
    with pytest.raises(errors):
        async with connection.transaction():
            yield


DENIED: Final = (pg.InsufficientPrivilege,)


def test_tables_without_a_factory_fail_loudly() -> None:
    """A type that nobody has thought of is no reason to skip a table."""
    with pytest.raises(KeyError):
        value_of("tsvector")


async def test_each_tenant_sees_its_own_row_and_no_other(raw: Raw, world: World) -> None:
    async with tenant_scope(raw, world.me):
        for table in world.tables:
            select = sql.SQL("SELECT {} FROM {}").format(
                sql.SQL(", ").join(map(sql.Identifier, table.primary)), table.identifier
            )
            seen = await (await raw.execute(select)).fetchall()
            assert seen == [tuple(world.mine[table.name][column] for column in table.primary)]


async def test_foreign_rows_cannot_be_found_locked_changed_or_deleted(
    raw: Raw, world: World, unharmed: None
) -> None:
    async with tenant_scope(raw, world.me):
        for table in world.tables:
            owner, theirs = sql.Identifier(table.owner), world.theirs[table.name][table.owner]
            for statement in (
                "SELECT 1 FROM {table} WHERE {owner} = %s",
                "SELECT 1 FROM {table} WHERE {owner} = %s FOR UPDATE",
                "UPDATE {table} SET {owner} = {owner} WHERE {owner} = %s",
                "DELETE FROM {table} WHERE {owner} = %s",
            ):
                attack = sql.SQL(statement).format(table=table.identifier, owner=owner)
                assert await changed(raw, attack, theirs) == 0, table.name


async def test_an_update_without_a_filter_changes_ones_own_rows_only(
    raw: Raw, world: World
) -> None:
    before = await everything(raw, world)
    async with tenant_scope(raw, world.me):
        for table in world.tables:
            owner = sql.Identifier(table.owner)
            attack = sql.SQL("UPDATE {} SET {} = {}").format(table.identifier, owner, owner)
            if table.name == "memberships":
                async with refused(raw, *DENIED):
                    await changed(raw, attack)
                continue
            assert await changed(raw, attack) == 1, table.name
    assert await everything(raw, world) == before


async def test_a_delete_without_a_filter_leaves_the_others_whole(raw: Raw, world: World) -> None:
    async with tenant_scope(raw, world.me):
        for table in reversed(world.tables):
            await changed(raw, sql.SQL("DELETE FROM {}").format(table.identifier))
    async with tenant_scope(raw, UUID(str(world.theirs["tenants"]["id"]))):
        for table in world.tables:
            count = sql.SQL("SELECT 1 FROM {}").format(table.identifier)
            assert await changed(raw, count) == 1, table.name


async def test_no_row_can_be_made_for_another_tenant(
    raw: Raw, world: World, unharmed: None
) -> None:
    async with tenant_scope(raw, world.me):
        for table in world.tables:
            async with refused(raw, *DENIED):
                await put(raw, table, row_for(table, world.theirs))


async def test_no_row_can_be_given_to_another_tenant(
    raw: Raw, world: World, unharmed: None
) -> None:
    async with tenant_scope(raw, world.me):
        for table in world.tables:
            attack = sql.SQL("UPDATE {} SET {} = %s").format(
                table.identifier, sql.Identifier(table.owner)
            )
            async with refused(raw, *DENIED, pg.ForeignKeyViolation):
                await changed(raw, attack, world.theirs[table.name][table.owner])


async def test_an_upsert_cannot_reach_a_foreign_row(raw: Raw, world: World, unharmed: None) -> None:
    """ON CONFLICT meets rows that the policies hide: it must fail, and must not take them."""
    async with tenant_scope(raw, world.me):
        for table in world.tables:
            row = row_for(table, world.theirs) | {
                column: world.theirs[table.name][column] for column in table.primary
            }
            primary = sql.SQL(", ").join(map(sql.Identifier, table.primary))
            owner = sql.Identifier(table.owner)
            attack = sql.SQL(
                "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {} = EXCLUDED.{}"
            ).format(
                table.identifier,
                sql.SQL(", ").join(map(sql.Identifier, row)),
                sql.SQL(", ").join(sql.Placeholder() * len(row)),
                primary,
                owner,
                owner,
            )
            async with refused(raw, *DENIED):
                await changed(raw, attack, *row.values())


async def test_no_row_can_refer_to_a_foreign_one(raw: Raw, world: World, unharmed: None) -> None:
    """PostgreSQL checks foreign keys without the policies: the tenant is part of each key."""
    tried = 0
    async with tenant_scope(raw, world.me):
        for table in world.tables:
            for key in table.keys:
                foreign = {
                    here: world.theirs[key.table][there]
                    for here, there in zip(key.columns, key.there, strict=True)
                    if here != "tenant_id"
                }
                if not foreign:
                    continue
                tried += 1
                row = row_for(table, world.mine) | foreign
                async with refused(raw, *DENIED, pg.ForeignKeyViolation):
                    await raw.execute(sql.SQL("DELETE FROM {}").format(table.identifier))
                    await put(raw, table, row)
                attack = sql.SQL("UPDATE {} SET ({}) = ROW({})").format(
                    table.identifier,
                    sql.SQL(", ").join(map(sql.Identifier, foreign)),
                    sql.SQL(", ").join(sql.Placeholder() * len(foreign)),
                )
                async with refused(raw, *DENIED, pg.ForeignKeyViolation):
                    await changed(raw, attack, *foreign.values())
    assert tried >= 4


async def test_a_tenant_cannot_let_a_known_user_in(raw: Raw, world: World, unharmed: None) -> None:
    """Its own membership would open the user's row to it, and the password hash with it."""
    theirs = world.theirs["users"]["id"]
    row = {
        "tenant_id": world.me,
        "id": uuid4(),
        "user_id": theirs,
        "role_id": world.mine["roles"]["id"],
    }
    membership = next(table for table in world.tables if table.name == "memberships")
    async with tenant_scope(raw, world.me):
        async with refused(raw, *DENIED):
            await put(raw, membership, row)
        async with refused(raw, *DENIED):
            await raw.execute("UPDATE memberships SET user_id = %s", (theirs,))
        assert (
            await changed(raw, sql.SQL("SELECT 1 FROM users WHERE id = %s").format(), theirs) == 0
        )


async def test_no_table_can_be_truncated(raw: Raw, world: World, unharmed: None) -> None:
    async with tenant_scope(raw, world.me):
        for table in world.tables:
            async with refused(raw, *DENIED):
                await raw.execute(sql.SQL("TRUNCATE {} CASCADE").format(table.identifier))


async def test_copy_is_refused_inwards_and_filtered_outwards(
    raw: Raw, world: World, unharmed: None
) -> None:
    for table in world.tables:
        async with tenant_scope(raw, world.me):
            async with refused(raw, pg.FeatureNotSupported):
                into = sql.SQL("COPY {} FROM STDIN").format(table.identifier)
                async with raw.cursor() as cursor, cursor.copy(into):
                    pass
            outof = sql.SQL("COPY {} TO STDOUT").format(table.identifier)
            async with raw.cursor() as cursor, cursor.copy(outof) as copy:
                assert len([row async for row in copy.rows()]) == 1, table.name


async def test_the_planners_statistics_tell_no_values(raw: Raw, world: World) -> None:
    """`pg_stats` holds the most common values of every column."""
    for table in world.tables:
        await raw.execute(sql.SQL("ANALYZE {}").format(table.identifier))
    names = [table.name for table in world.tables]
    async with tenant_scope(raw, world.me):
        cursor = await raw.execute("SELECT 1 FROM pg_stats WHERE tablename = ANY (%s)", (names,))
        assert cursor.rowcount == 0


NOBODY: Final[list[dict[str, str]]] = [
    {},
    {"tenant_id": "", "scope": ""},
    {"tenant_id": str(UUID(int=0))},
    {"scope": "System"},
    {"scope": " system"},
    {"scope": "x"},
]


@pytest.mark.parametrize("scope", NOBODY)
async def test_without_a_tenant_there_is_nothing(
    raw: Raw, world: World, unharmed: None, scope: dict[str, str]
) -> None:
    async with raw.transaction():
        for name, value in scope.items():
            await raw.execute("SELECT set_config(%s, %s, true)", (f"jangada.{name}", value))
        for table in world.tables:
            for statement in ("SELECT 1 FROM {}", "DELETE FROM {}"):
                attack = sql.SQL(statement).format(table.identifier)
                assert await changed(raw, attack) == 0, table.name
            async with refused(raw, *DENIED):
                await put(raw, table, row_for(table, world.theirs))


async def test_a_tenant_that_is_no_id_is_an_error(raw: Raw, world: World) -> None:
    with pytest.raises(pg.InvalidTextRepresentation):
        async with raw.transaction():
            await raw.execute("SELECT set_config('jangada.tenant_id', 'x'' OR true', true)")
            await raw.execute("SELECT 1 FROM jobs")
