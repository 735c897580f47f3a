"""Unique keys of jobs, and the indexes for forgetting finished jobs and finding dead letters.

Both indexes are partial: the first costs a job one insertion, when it ends; the second costs only
those that are discarded (see docs/decisions/0010-rows-of-jobs.md). A unique key names its job
without a foreign key on purpose: one whose job is gone counts for nothing, and deleting a job
without a key looks for none.
"""

from alembic import op

from jangada.migrations.tenancy import protect

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE job_unique_keys (
            tenant_id uuid NOT NULL
                CONSTRAINT fk_job_unique_keys_tenant_id_tenants
                REFERENCES tenants ON DELETE CASCADE,
            key bytea NOT NULL,
            job_id uuid NOT NULL,
            taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            CONSTRAINT pk_job_unique_keys PRIMARY KEY (tenant_id, key)
        )""")
    protect("job_unique_keys")
    op.execute("ALTER TABLE jobs ADD COLUMN kept boolean NOT NULL DEFAULT false")
    # An import's page is its job: it stays until somebody deletes the import.
    op.execute("SELECT set_config('jangada.scope', 'system', true)")
    op.execute("UPDATE jobs SET kept = true WHERE kind = 'contacts.import'")
    # Writes to jobs wait while these are built: 11 s for 5 million jobs.
    op.execute("SET LOCAL statement_timeout = '5min'")
    op.execute("""
        CREATE INDEX ix_jobs_finished ON jobs (state, finished_at)
        WHERE state IN ('completed', 'discarded', 'cancelled') AND NOT kept""")
    op.execute("CREATE INDEX ix_jobs_discarded ON jobs (tenant_id, id) WHERE state = 'discarded'")


def downgrade() -> None:
    op.execute("DROP INDEX ix_jobs_discarded, ix_jobs_finished")
    op.execute("ALTER TABLE jobs DROP COLUMN kept")
    op.execute("DROP TABLE job_unique_keys")
