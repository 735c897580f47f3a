"""Row-level security, the same on every tenant table (docs/decisions/0005-tenancy.md and 0017).

The scalar sub-selects make PostgreSQL evaluate the setting once per statement instead of once per
row; `nullif` is needed because a transaction-local setting reads '' after its transaction.
"""

from typing import Final

from alembic import op

CURRENT_TENANT: Final = "(SELECT nullif(current_setting('jangada.tenant_id', true), '')::uuid)"
IS_SYSTEM: Final = "(SELECT current_setting('jangada.scope', true)) = 'system'"
ROWS_OF_TENANT: Final = f"CASE WHEN tenant_id = {CURRENT_TENANT} THEN true ELSE false END"
"""A comparison in which the planner doesn't see one.

Queries name their tenant themselves. The planner would reckon the two as independent conditions,
expect next to no rows of a tenant, and read all of them for a page.
"""


def protect(table: str, *, rows_of_tenant: str = ROWS_OF_TENANT) -> None:
    """Enable and force row-level security on a table: the tenant's rows, or all in system scope.

    TRUNCATE asks no policy, so even the owner may not do it.
    """
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON {table} USING ({rows_of_tenant}) WITH CHECK ({rows_of_tenant})"
    )
    op.execute(f"CREATE POLICY system ON {table} USING ({IS_SYSTEM}) WITH CHECK ({IS_SYSTEM})")
    op.execute(f"REVOKE TRUNCATE ON {table} FROM CURRENT_USER")
