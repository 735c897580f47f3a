"""Sessions and their ends, signing keys, failed sign-ins.

`session_ends` is what API processes follow to refuse the access tokens of ended sessions. A trigger
writes it, so that no way of ending a session is forgotten: not the deletion of a user, whose
sessions go by cascade. `ended_xid` lets a follower read on exactly where it stopped, whatever the
order in which transactions commit.
"""

from alembic import op

from jangada.migrations.tenancy import protect

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE sessions (
            tenant_id uuid NOT NULL
                CONSTRAINT fk_sessions_tenant_id_tenants REFERENCES tenants ON DELETE CASCADE,
            id uuid NOT NULL,
            user_id uuid NOT NULL,
            generation integer NOT NULL DEFAULT 0,
            token_hash bytea NOT NULL
                CONSTRAINT ck_sessions_token_hash CHECK (octet_length(token_hash) = 32),
            previous_hash bytea
                CONSTRAINT ck_sessions_previous_hash CHECK (octet_length(previous_hash) = 32),
            rotated_at timestamptz NOT NULL,
            idle_expires_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            ended_at timestamptz,
            end_reason text CONSTRAINT ck_sessions_end_reason CHECK (end_reason IN (
                'logout', 'revoked', 'password_changed', 'token_reused')),
            address text,
            user_agent text,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_sessions PRIMARY KEY (tenant_id, id),
            CONSTRAINT fk_sessions_tenant_id_user_id_memberships
                FOREIGN KEY (tenant_id, user_id) REFERENCES memberships (tenant_id, user_id)
                ON DELETE CASCADE
        )""")
    op.execute("CREATE INDEX ix_sessions_user_id ON sessions (user_id, tenant_id)")
    op.execute("CREATE INDEX ix_sessions_expires_at ON sessions (expires_at)")
    protect("sessions")
    op.execute("""
        CREATE TABLE session_ends (
            session_id uuid CONSTRAINT pk_session_ends PRIMARY KEY,
            ended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            ended_xid xid8 NOT NULL DEFAULT pg_current_xact_id()
        )""")
    op.execute("CREATE INDEX ix_session_ends_ended_xid ON session_ends (ended_xid)")
    op.execute("CREATE INDEX ix_session_ends_ended_at ON session_ends (ended_at)")
    op.execute("""
        CREATE FUNCTION record_session_end() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO session_ends (session_id) VALUES (OLD.id) ON CONFLICT DO NOTHING;
            RETURN NULL;
        END $$""")
    op.execute("""
        CREATE TRIGGER session_updated AFTER UPDATE OF ended_at ON sessions FOR EACH ROW
        WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL)
        EXECUTE FUNCTION record_session_end()""")
    op.execute("""
        CREATE TRIGGER session_deleted AFTER DELETE ON sessions FOR EACH ROW
        WHEN (OLD.ended_at IS NULL)
        EXECUTE FUNCTION record_session_end()""")
    op.execute("""
        CREATE TABLE signing_keys (
            id uuid CONSTRAINT pk_signing_keys PRIMARY KEY,
            algorithm text NOT NULL
                CONSTRAINT ck_signing_keys_algorithm CHECK (algorithm IN ('EdDSA', 'ES256')),
            public_key bytea NOT NULL,
            sealed_private_key bytea NOT NULL,
            signs_from timestamptz NOT NULL,
            expires_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        )""")
    op.execute("""
        CREATE TABLE sign_in_failures (
            key text CONSTRAINT pk_sign_in_failures PRIMARY KEY,
            failures integer NOT NULL,
            window_ends_at timestamptz NOT NULL
        )""")


def downgrade() -> None:
    op.execute("DROP TABLE sign_in_failures, signing_keys, sessions, session_ends")
    op.execute("DROP FUNCTION record_session_end")
