"""Policies that the planner doesn't reckon twice, and statistics of contacts before long.

So that a page reads what it shows, whatever is known of the tenant (see
docs/decisions/0017-policies-and-plans.md). Rows are seen as before.

Each table is locked by itself, and for a moment: what was done before a lock couldn't be had is
done again, which changes nothing.
"""

from alembic import op

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


def downgrade() -> None:
    """The policies mean what they meant."""
    op.execute("ALTER TABLE contacts RESET (autovacuum_analyze_scale_factor)")
