"""What the planner goes by, so that a page reads what it shows whatever it knows of the tenant.

Policies that it doesn't reckon twice, no index that is as good as the primary key for a page but
isn't in its order, and statistics before a tenant has many contacts (see
docs/decisions/0017-policies-and-plans.md). Rows are seen as before.

Each table is locked by itself, and for a moment: what was done before a lock couldn't be had is
done again, which changes nothing.
"""

from alembic import op

from jangada.migrations.indexes import beside_traffic
from jangada.migrations.tenancy import ROWS_OF_TENANT

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = (
    *("memberships", "roles", "sessions", "jobs", "job_unique_keys", "schedules"),
    *("files", "deleted_blobs", "contacts", "contact_imports", "import_rejects"),
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for table in TABLES:
            op.execute(
                f"ALTER POLICY tenant ON {table}"
                f" USING ({ROWS_OF_TENANT}) WITH CHECK ({ROWS_OF_TENANT})"
            )
        # A tenth of a large table is more than a new tenant has, whom nobody would know for days.
        op.execute("ALTER TABLE contacts SET (autovacuum_analyze_scale_factor = 0.01)")
    with beside_traffic():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_contacts_names")
        # Every search for a name that isn't empty implies it, that of the release before as well.
        op.execute("""
            CREATE INDEX CONCURRENTLY ix_contacts_names ON contacts (tenant_id, name_key)
            WHERE name_key > ''""")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_contacts_tenant_id_name_key")


def downgrade() -> None:
    """The policies mean what they meant."""
    op.execute("ALTER TABLE contacts RESET (autovacuum_analyze_scale_factor)")
    op.execute("DROP INDEX ix_contacts_names")
    op.execute("CREATE INDEX ix_contacts_tenant_id_name_key ON contacts (tenant_id, name_key)")
