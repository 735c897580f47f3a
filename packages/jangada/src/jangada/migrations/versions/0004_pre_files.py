"""Files, and the blobs whose rows are gone.

A trigger writes `deleted_blobs`, so that no way of deleting a file leaves its content behind: not
the deletion of a tenant, whose files go by cascade. Its rows outlive their tenant, hence no foreign
key to `tenants`.
"""

from alembic import op

from jangada.migrations.tenancy import protect

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE files (
            tenant_id uuid NOT NULL
                CONSTRAINT fk_files_tenant_id_tenants REFERENCES tenants ON DELETE CASCADE,
            id uuid NOT NULL,
            state text NOT NULL CONSTRAINT ck_files_state CHECK (state IN ('uploading', 'stored')),
            name text CONSTRAINT ck_files_name CHECK (length(name) BETWEEN 1 AND 255),
            media_type text
                CONSTRAINT ck_files_media_type CHECK (length(media_type) BETWEEN 1 AND 255),
            size_bytes bigint NOT NULL CONSTRAINT ck_files_size_bytes CHECK (size_bytes >= 0),
            blob_key text NOT NULL,
            lease_expires_at timestamptz,
            stored_at timestamptz,
            created_by uuid,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_files PRIMARY KEY (tenant_id, id),
            CONSTRAINT ck_files_complete CHECK (CASE state
                WHEN 'uploading' THEN lease_expires_at IS NOT NULL
                ELSE lease_expires_at IS NULL
                    AND num_nulls(name, media_type, stored_at) = 0 END)
        )""")
    op.execute("CREATE INDEX ix_files_usage ON files (tenant_id) INCLUDE (state, size_bytes)")
    op.execute("""
        CREATE INDEX ix_files_lease_expires_at ON files (lease_expires_at)
        WHERE state = 'uploading'""")
    protect("files")
    op.execute("""
        CREATE TABLE deleted_blobs (
            tenant_id uuid NOT NULL,
            blob_key text NOT NULL,
            deleted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            CONSTRAINT pk_deleted_blobs PRIMARY KEY (tenant_id, blob_key)
        )""")
    op.execute("CREATE INDEX ix_deleted_blobs_deleted_at ON deleted_blobs (deleted_at)")
    protect("deleted_blobs")
    op.execute("""
        CREATE FUNCTION record_deleted_blob() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO deleted_blobs (tenant_id, blob_key) VALUES (OLD.tenant_id, OLD.blob_key)
            ON CONFLICT DO NOTHING;
            RETURN NULL;
        END $$""")
    op.execute("""
        CREATE TRIGGER deleted_blob AFTER DELETE ON files
        FOR EACH ROW EXECUTE FUNCTION record_deleted_blob()""")


def downgrade() -> None:
    op.execute("DROP TABLE files, deleted_blobs")
    op.execute("DROP FUNCTION record_deleted_blob")
