"""An index of names that a list without a search can't use, whose pages are the primary key's.

See docs/decisions/0017-policies-and-plans.md. The one of before goes in a revision of its own, so
that one of both is there however often this one breaks off.
"""

from alembic import op

from jangada.migrations.indexes import beside_traffic

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with beside_traffic():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_contacts_names")
        op.execute("""
            CREATE INDEX CONCURRENTLY ix_contacts_names ON contacts (tenant_id, name_key)
            WHERE name_key > ''""")


def downgrade() -> None:
    op.execute("DROP INDEX ix_contacts_names")
