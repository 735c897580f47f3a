"""Jobs, and the workers that run them.

`jobs` keeps four indexes, three of them partial: a job costs an insert, a grant and a finish, and
fillfactor 70 leaves room so that grant and finish mostly stay on the row's own page.
"""

from alembic import op

from jangada.migrations.tenancy import protect

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE jobs (
            tenant_id uuid NOT NULL
                CONSTRAINT fk_jobs_tenant_id_tenants REFERENCES tenants ON DELETE CASCADE,
            id uuid NOT NULL,
            kind text NOT NULL,
            queue text NOT NULL,
            state text NOT NULL CONSTRAINT ck_jobs_state CHECK (state IN (
                'scheduled', 'available', 'running', 'retryable',
                'completed', 'discarded', 'cancelled')),
            priority smallint NOT NULL DEFAULT 2
                CONSTRAINT ck_jobs_priority CHECK (priority BETWEEN 1 AND 4),
            args jsonb NOT NULL,
            result jsonb,
            errors jsonb NOT NULL DEFAULT '[]',
            attempt integer NOT NULL DEFAULT 0,
            max_attempts integer NOT NULL
                CONSTRAINT ck_jobs_max_attempts CHECK (max_attempts >= 1),
            crashes integer NOT NULL DEFAULT 0,
            revision bigint NOT NULL DEFAULT 1,
            worker_id uuid,
            progress_done bigint,
            progress_total bigint,
            unique_key bytea,
            concurrency_key text,
            tags text[] NOT NULL DEFAULT '{}',
            metadata jsonb NOT NULL DEFAULT '{}',
            created_by uuid,
            request_id text,
            traceparent text,
            scheduled_at timestamptz NOT NULL DEFAULT now(),
            started_at timestamptz,
            finished_at timestamptz,
            cancel_requested_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_jobs PRIMARY KEY (tenant_id, id)
        ) WITH (fillfactor = 70)""")
    op.execute("""
        CREATE INDEX ix_jobs_available ON jobs (queue, tenant_id, priority, scheduled_at, id)
        WHERE state = 'available'""")
    op.execute("""
        CREATE INDEX ix_jobs_due ON jobs (queue, scheduled_at)
        WHERE state IN ('scheduled', 'retryable')""")
    op.execute("CREATE INDEX ix_jobs_running ON jobs (worker_id) WHERE state = 'running'")
    op.execute("""
        CREATE TABLE workers (
            id uuid CONSTRAINT pk_workers PRIMARY KEY,
            pod_uid text,
            host text NOT NULL,
            pid integer NOT NULL,
            version text NOT NULL,
            queues text[] NOT NULL,
            slots integer NOT NULL,
            started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            beat_at timestamptz NOT NULL DEFAULT clock_timestamp()
        ) WITH (fillfactor = 50)""")
    protect("jobs")


def downgrade() -> None:
    op.execute("DROP TABLE workers, jobs")
