"""Rounds over tenants, limits per kind, and schedules.

`ix_jobs_available` leads with queue, kind, tenant and lane (the hash of the concurrency key), so
that a round skips what may not start now at one probe each, however much of it waits. The lane is a
column because row-level security lets no condition on an expression reach an index. What living
workers say of their kinds is in `workers.kinds`; the strictest of it is in `job_kinds`, where
grants lock and read it. `job_starts` counts the starts of kinds with a rate limit.
"""

from alembic import op

from jangada.migrations.tenancy import protect

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Adding the lane writes the table anew.
    op.execute("SET LOCAL statement_timeout = '10min'")
    op.execute("DROP INDEX ix_jobs_available")
    op.execute("""
        ALTER TABLE jobs ADD COLUMN lane bigint NOT NULL
            GENERATED ALWAYS AS (hashtextextended(coalesce(concurrency_key, ''), 0)) STORED""")
    op.execute("""
        CREATE INDEX ix_jobs_available
        ON jobs (queue, kind, tenant_id, lane, priority, scheduled_at, id)
        WHERE state = 'available'""")
    op.execute("ALTER TABLE workers ADD COLUMN kinds jsonb NOT NULL DEFAULT '[]'")
    op.execute("""
        CREATE TABLE job_kinds (
            kind text CONSTRAINT pk_job_kinds PRIMARY KEY,
            queue text NOT NULL,
            max_attempts integer NOT NULL,
            is_schedulable boolean NOT NULL,
            concurrency_limit integer,
            concurrency_per_key integer,
            rate_starts integer,
            rate_period interval,
            rate_per_tenant boolean NOT NULL,
            is_limited boolean NOT NULL GENERATED ALWAYS AS (concurrency_limit IS NOT NULL
                OR concurrency_per_key IS NOT NULL OR rate_starts IS NOT NULL) STORED
        )""")
    op.execute("""
        CREATE TABLE job_starts (
            kind text NOT NULL
                CONSTRAINT fk_job_starts_kind_job_kinds REFERENCES job_kinds ON DELETE CASCADE,
            bucket text NOT NULL,
            at timestamptz NOT NULL,
            starts integer NOT NULL,
            CONSTRAINT pk_job_starts PRIMARY KEY (kind, bucket, at)
        )""")
    op.execute("""
        CREATE TABLE schedules (
            tenant_id uuid NOT NULL
                CONSTRAINT fk_schedules_tenant_id_tenants REFERENCES tenants ON DELETE CASCADE,
            id uuid NOT NULL,
            name text NOT NULL,
            cron text NOT NULL,
            timezone text NOT NULL,
            kind text NOT NULL,
            args jsonb NOT NULL,
            queue text NOT NULL,
            priority smallint NOT NULL
                CONSTRAINT ck_schedules_priority CHECK (priority BETWEEN 1 AND 4),
            max_attempts integer NOT NULL
                CONSTRAINT ck_schedules_max_attempts CHECK (max_attempts >= 1),
            concurrency_key text,
            misfire text NOT NULL CONSTRAINT ck_schedules_misfire CHECK (misfire IN (
                'skip', 'once')),
            paused_at timestamptz,
            last_fired_at timestamptz,
            last_job_id uuid,
            next_at timestamptz NOT NULL,
            created_by uuid,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_schedules PRIMARY KEY (tenant_id, id),
            CONSTRAINT uq_schedules_tenant_id_name UNIQUE (tenant_id, name)
        )""")
    op.execute("CREATE INDEX ix_schedules_next_at ON schedules (next_at) WHERE paused_at IS NULL")
    protect("schedules")


def downgrade() -> None:
    op.execute("DROP TABLE schedules, job_starts, job_kinds")
    op.execute("ALTER TABLE workers DROP COLUMN kinds")
    op.execute("DROP INDEX ix_jobs_available")
    op.execute("ALTER TABLE jobs DROP COLUMN lane")
    op.execute("""
        CREATE INDEX ix_jobs_available ON jobs (queue, tenant_id, priority, scheduled_at, id)
        WHERE state = 'available'""")
