"""What PostgreSQL's own catalogue says about the isolation of tenants, whatever the code believes.

A new table is a tenant table unless it is put on the list below on purpose.
"""

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow
from pydantic import SecretStr

from jangada.config import DatabaseSettings
from jangada.db import Database
from jangada.db_errors import UnsafeRole
from jangada.local.postgres import EmbeddedPostgres

pytestmark = pytest.mark.anyio

PLATFORM_TABLES = {
    "alembic_version": "the schema's own revision",
    "job_kinds": "what workers say of the kinds of jobs",
    "job_starts": "numbers of starts, for rate limits",
    "session_ends": "ids of ended sessions, which every API process follows",
    "sign_in_failures": "counted before a tenant is known; the key is an HMAC",
    "signing_keys": "sign the tokens of all tenants; private keys are sealed",
    "workers": "serve all tenants",
}
"""They hold no tenant's data and are not protected."""

KEYED_OTHERWISE = {"tenants": "id", "users": "id"}
"""Protected, though their key is not a tenant's and an id."""

OUTLIVE_THEIR_TENANT = {"deleted_blobs"}
"""Without a foreign key to tenants."""

REFERENCES_TO_USERS = {("memberships", "fk_memberships_user_id_users")}
"""A user may belong to several tenants; a trigger lets only the system scope make a membership."""

TENANT = "(SELECT nullif(current_setting('jangada.tenant_id', true), '')::uuid)"
OF_TENANT = f"CASE WHEN tenant_id = {TENANT} THEN true ELSE false END"
"""Which the planner reckons as no condition on the column: queries have one already."""

SYSTEM = "(SELECT current_setting('jangada.scope', true)) = 'system'"
POLICIES = {
    "tenants": f"id = {TENANT}",
    "users": f"id IN (SELECT user_id FROM memberships WHERE tenant_id = {TENANT})",  # noqa: S608 - constant
}

type Catalogue = psycopg.AsyncConnection[TupleRow]


@pytest.fixture
async def catalogue(database: Database) -> AsyncIterator[Catalogue]:
    async with database.direct() as connection:
        yield connection


async def rows(connection: Catalogue, query: str, *values: object) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query.encode(), values)).fetchall()


async def all_tables(connection: Catalogue) -> set[str]:
    found = await rows(
        connection,
        """SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')""",
    )
    return {name for (name,) in found}


async def protected(connection: Catalogue) -> set[str]:
    return await all_tables(connection) - set(PLATFORM_TABLES)


async def of_tenants(connection: Catalogue) -> set[str]:
    return await protected(connection) - set(KEYED_OTHERWISE)


async def test_every_listed_table_exists(catalogue: Catalogue) -> None:
    listed = {*PLATFORM_TABLES, *KEYED_OTHERWISE, *OUTLIVE_THEIR_TENANT, *POLICIES}
    assert listed <= await all_tables(catalogue)


async def test_nothing_shows_rows_past_the_policies(catalogue: Catalogue) -> None:
    """Views, materialised views and SECURITY DEFINER functions would, each in its own way."""
    views = await rows(
        catalogue,
        """SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('r', 'p', 'i', 'I', 't')""",
    )
    functions = await rows(
        catalogue,
        """SELECT proname FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND prosecdef""",
    )
    assert (views, functions) == ([], [])


async def test_every_tenant_table_says_whose_each_row_is(catalogue: Catalogue) -> None:
    found = await rows(
        catalogue,
        """SELECT attrelid::regclass::text FROM pg_attribute
        WHERE attname = 'tenant_id' AND atttypid = 'uuid'::regtype AND attnotnull""",
    )
    assert await of_tenants(catalogue) <= {name for (name,) in found}


async def test_row_level_security_is_enabled_and_forced(catalogue: Catalogue) -> None:
    found = await rows(
        catalogue,
        "SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity",
    )
    assert {name for (name,) in found} == await protected(catalogue)


async def test_every_protected_table_has_the_two_policies_and_no_other(
    catalogue: Catalogue,
) -> None:
    """PostgreSQL writes expressions its own way, so that of a model table is compared."""
    model = await model_policies(catalogue)
    found = await rows(
        catalogue,
        """SELECT tablename, policyname, permissive, roles::text, cmd, qual, with_check
        FROM pg_policies WHERE schemaname = 'public' ORDER BY 1, 2""",
    )
    expected = [
        (table, name, "PERMISSIVE", "{public}", "ALL", expression, expression)
        for table in sorted(await protected(catalogue))
        for name, expression in (
            ("system", model["system"]),
            ("tenant", model.get(table, model["tenant"])),
        )
    ]
    assert found == expected


async def model_policies(connection: Catalogue) -> dict[str, str]:
    """The expressions of DESIGN, as PostgreSQL writes them."""
    await connection.execute("CREATE TEMP TABLE model (tenant_id uuid, id uuid)")
    expressions = {"tenant": OF_TENANT, "system": SYSTEM} | POLICIES
    for name, expression in expressions.items():
        statement = sql.SQL("CREATE POLICY {} ON model USING ({})").format(
            sql.Identifier(name),
            sql.SQL(expression),
        )
        await connection.execute(statement)
    found = await rows(
        connection, "SELECT policyname, qual FROM pg_policies WHERE tablename = 'model'"
    )
    await connection.execute("DROP TABLE model")
    return dict(found)


async def test_every_unique_key_begins_with_the_tenant(catalogue: Catalogue) -> None:
    """Otherwise one tenant could tell, or block, what another has."""
    found = await rows(
        catalogue,
        """SELECT indexrelid::regclass::text FROM pg_index
        JOIN pg_class ON pg_class.oid = indrelid
        WHERE indisunique AND relname = ANY (%s) AND coalesce((SELECT attname FROM pg_attribute
            WHERE attrelid = indrelid AND attnum = indkey[0]), '') <> 'tenant_id'""",
        list(await of_tenants(catalogue)),
    )
    assert found == []


async def test_every_table_has_a_primary_key(catalogue: Catalogue) -> None:
    found = await rows(
        catalogue, "SELECT indrelid::regclass::text FROM pg_index WHERE indisprimary"
    )
    assert await all_tables(catalogue) <= {name for (name,) in found}


async def test_foreign_keys_stay_inside_the_tenant(catalogue: Catalogue) -> None:
    """PostgreSQL checks them without row-level security."""
    found = await rows(
        catalogue,
        """SELECT conrelid::regclass::text, conname FROM pg_constraint
        WHERE contype = 'f' AND conrelid::regclass::text = ANY (%s)
        AND NOT (confrelid = 'tenants'::regclass AND array_length(conkey, 1) = 1 AND
            (SELECT attname FROM pg_attribute
             WHERE attrelid = conrelid AND attnum = conkey[1]) = 'tenant_id')
        AND NOT (confrelid::regclass::text = ANY (%s) AND array_length(conkey, 1) > 1 AND
            (SELECT attname FROM pg_attribute
             WHERE attrelid = conrelid AND attnum = conkey[1]) = 'tenant_id' AND
            (SELECT attname FROM pg_attribute
             WHERE attrelid = confrelid AND attnum = confkey[1]) = 'tenant_id')
        """,
        list(await protected(catalogue)),
        list(await of_tenants(catalogue)),
    )
    assert set(found) == REFERENCES_TO_USERS


async def test_no_foreign_key_would_empty_the_tenant_of_a_row(catalogue: Catalogue) -> None:
    """ON DELETE SET NULL empties every column of the key unless it names the ones it may."""
    found = await rows(
        catalogue,
        """SELECT conname FROM pg_constraint
        WHERE contype = 'f' AND (confdeltype = 'd' OR confupdtype IN ('d', 'n')
            OR confdeltype = 'n' AND (confdelsetcols IS NULL OR (SELECT attnum FROM pg_attribute
                WHERE attrelid = conrelid AND attname = 'tenant_id') = ANY (confdelsetcols)))""",
    )
    assert found == []


async def test_every_tenant_table_goes_with_its_tenant(catalogue: Catalogue) -> None:
    found = await rows(
        catalogue,
        """SELECT conrelid::regclass::text FROM pg_constraint
        WHERE contype = 'f' AND confrelid = 'tenants'::regclass AND confdeltype = 'c'""",
    )
    expected = await of_tenants(catalogue) - OUTLIVE_THEIR_TENANT
    assert {name for (name,) in found} == expected


async def test_every_foreign_key_has_an_index_to_delete_by(catalogue: Catalogue) -> None:
    """Without one, deleting a row reads the whole of each table that refers to it."""
    found = await rows(
        catalogue,
        """SELECT conname FROM pg_constraint
        WHERE contype = 'f' AND NOT EXISTS (SELECT 1 FROM pg_index
            WHERE indrelid = conrelid AND indpred IS NULL
            AND indkey[0] = ANY (conkey))""",
    )
    assert found == []


async def test_nobody_may_truncate_a_protected_table(catalogue: Catalogue) -> None:
    """TRUNCATE asks no policy."""
    found = await rows(
        catalogue,
        """SELECT relname FROM pg_class
        WHERE relkind IN ('r', 'p') AND relname = ANY (%s)
        AND has_table_privilege(oid, 'TRUNCATE')""",
        list(await protected(catalogue)),
    )
    assert found == []


async def test_the_role_owns_the_tables_and_is_an_ordinary_one(catalogue: Catalogue) -> None:
    owners = await rows(
        catalogue,
        """SELECT DISTINCT relowner::regrole::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')""",
    )
    role = await rows(
        catalogue,
        """SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles
        WHERE rolname = current_user""",
    )
    assert owners == [("jangada",)]
    assert role == [("jangada", False, False, False, False)]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [("SUPERUSER", "is a superuser"), ("BYPASSRLS", "has BYPASSRLS")],
)
async def test_a_role_that_no_policy_holds_for_is_refused(
    postgres: EmbeddedPostgres, database_url: str, attributes: str, reason: str
) -> None:
    user, password = "unsafe", "a password"
    async with await psycopg.AsyncConnection.connect(postgres.admin_url, autocommit=True) as admin:
        statement = sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}").format(
            sql.Identifier(user),
            sql.SQL(attributes),
            sql.Literal(password),
        )
        await admin.execute(statement)
        await admin.execute("GRANT jangada TO unsafe")
        try:
            for options in ("", "&options=-c%20role%3Djangada"):
                url = f"postgresql://{user}:a%20password@/{database_url.split('@/')[1]}{options}"
                with pytest.raises(UnsafeRole, match=f"unsafe {reason}"):
                    await check(url)
        finally:
            await admin.execute("DROP ROLE unsafe")


async def test_the_platforms_own_role_is_accepted(database: Database) -> None:
    assert await database.check_role() is None  # type: ignore[func-returns-value]


async def check(url: str) -> None:
    database = Database(DatabaseSettings(url=SecretStr(url)))
    try:
        await database.check_role()
    finally:
        await database.close()
