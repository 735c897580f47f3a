"""Tenants, users, roles and memberships.

A membership opens its user's row to the tenant, so a tenant's own session must not make one for a
user of its choice: a trigger lets only the system scope do that.
"""

from alembic import op

from jangada.migrations.tenancy import CURRENT_TENANT, protect

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE tenants (
            id uuid CONSTRAINT pk_tenants PRIMARY KEY,
            name text NOT NULL CONSTRAINT ck_tenants_name CHECK (length(name) BETWEEN 1 AND 200),
            kind text NOT NULL CONSTRAINT ck_tenants_kind CHECK (kind IN ('personal', 'team')),
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        )""")
    op.execute("""
        CREATE TABLE users (
            id uuid CONSTRAINT pk_users PRIMARY KEY,
            email text NOT NULL,
            email_key text NOT NULL CONSTRAINT uq_users_email_key UNIQUE,
            name text NOT NULL CONSTRAINT ck_users_name CHECK (length(name) BETWEEN 1 AND 200),
            password_hash text,
            disabled_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        )""")
    op.execute("""
        CREATE TABLE roles (
            tenant_id uuid NOT NULL
                CONSTRAINT fk_roles_tenant_id_tenants REFERENCES tenants ON DELETE CASCADE,
            id uuid NOT NULL,
            name text NOT NULL,
            permissions text[] NOT NULL DEFAULT '{}',
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_roles PRIMARY KEY (tenant_id, id),
            CONSTRAINT uq_roles_tenant_id_name UNIQUE (tenant_id, name)
        )""")
    op.execute("""
        CREATE TABLE memberships (
            tenant_id uuid NOT NULL
                CONSTRAINT fk_memberships_tenant_id_tenants REFERENCES tenants ON DELETE CASCADE,
            id uuid NOT NULL,
            user_id uuid NOT NULL
                CONSTRAINT fk_memberships_user_id_users REFERENCES users ON DELETE CASCADE,
            role_id uuid NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_memberships PRIMARY KEY (tenant_id, id),
            CONSTRAINT uq_memberships_tenant_id_user_id UNIQUE (tenant_id, user_id),
            CONSTRAINT fk_memberships_tenant_id_role_id_roles
                FOREIGN KEY (tenant_id, role_id) REFERENCES roles (tenant_id, id)
        )""")
    op.execute("CREATE INDEX ix_memberships_user_id ON memberships (user_id)")
    op.execute("""
        CREATE FUNCTION require_system_scope() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('jangada.scope', true) IS DISTINCT FROM 'system' THEN
                RAISE insufficient_privilege
                    USING MESSAGE = 'a user is let into a tenant in system scope only';
            END IF;
            RETURN NEW;
        END $$""")
    op.execute("""
        CREATE TRIGGER membership_made BEFORE INSERT OR UPDATE OF tenant_id, user_id ON memberships
        FOR EACH ROW EXECUTE FUNCTION require_system_scope()""")
    protect("roles")
    protect("memberships")
    protect("tenants", rows_of_tenant=f"id = {CURRENT_TENANT}")
    protect(
        "users",
        rows_of_tenant=(
            f"id IN (SELECT user_id FROM memberships WHERE tenant_id = {CURRENT_TENANT})"
        ),
    )


def downgrade() -> None:
    op.execute("DROP TABLE memberships, roles, users, tenants")
    op.execute("DROP FUNCTION require_system_scope")
