"""The index of names that 0009 replaces goes: no release has used it."""

from alembic import op

from jangada.migrations.indexes import beside_traffic

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with beside_traffic():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_contacts_tenant_id_name_key")


def downgrade() -> None:
    op.execute("CREATE INDEX ix_contacts_tenant_id_name_key ON contacts (tenant_id, name_key)")
