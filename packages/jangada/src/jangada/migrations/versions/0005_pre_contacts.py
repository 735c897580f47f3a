"""Contacts, their imports, and the rows that imports rejected.

Text that is searched by prefix is compared byte by byte (COLLATE "C"), on plain columns: under
row-level security PostgreSQL uses no index for `lower(…)` or LIKE, since they might leak. A contact
without an e-mail address has its phone as the key, hence two partial unique indexes.
"""

from alembic import op

from jangada.migrations.tenancy import protect

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE contacts (
            tenant_id uuid NOT NULL
                CONSTRAINT fk_contacts_tenant_id_tenants REFERENCES tenants ON DELETE CASCADE,
            id uuid NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            email text COLLATE "C",
            phone text COLLATE "C",
            name text NOT NULL DEFAULT '',
            name_key text COLLATE "C" NOT NULL DEFAULT '',
            company text NOT NULL DEFAULT '',
            attributes jsonb NOT NULL DEFAULT '{}',
            CONSTRAINT pk_contacts PRIMARY KEY (tenant_id, id),
            CONSTRAINT ck_contacts_key CHECK (email IS NOT NULL OR phone IS NOT NULL)
        )""")
    op.execute("""
        CREATE UNIQUE INDEX uq_contacts_tenant_id_email ON contacts (tenant_id, email)
        WHERE email IS NOT NULL""")
    op.execute("""
        CREATE UNIQUE INDEX uq_contacts_tenant_id_phone ON contacts (tenant_id, phone)
        WHERE email IS NULL""")
    op.execute("""
        CREATE INDEX ix_contacts_tenant_id_phone ON contacts (tenant_id, phone)
        WHERE phone IS NOT NULL""")
    op.execute("CREATE INDEX ix_contacts_tenant_id_name_key ON contacts (tenant_id, name_key)")
    protect("contacts")
    op.execute("""
        CREATE TABLE contact_imports (
            tenant_id uuid NOT NULL
                CONSTRAINT fk_contact_imports_tenant_id_tenants
                REFERENCES tenants ON DELETE CASCADE,
            id uuid NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            file_id uuid,
            file_name text NOT NULL,
            encoding text,
            delimiter text,
            header text[],
            CONSTRAINT pk_contact_imports PRIMARY KEY (tenant_id, id),
            CONSTRAINT fk_contact_imports_tenant_id_id_jobs
                FOREIGN KEY (tenant_id, id) REFERENCES jobs ON DELETE CASCADE,
            CONSTRAINT fk_contact_imports_tenant_id_file_id_files
                FOREIGN KEY (tenant_id, file_id) REFERENCES files ON DELETE SET NULL (file_id)
        )""")
    op.execute("""
        CREATE INDEX ix_contact_imports_tenant_id_file_id ON contact_imports (tenant_id, file_id)
        WHERE file_id IS NOT NULL""")
    protect("contact_imports")
    op.execute("""
        CREATE TABLE import_rejects (
            tenant_id uuid NOT NULL
                CONSTRAINT fk_import_rejects_tenant_id_tenants
                REFERENCES tenants ON DELETE CASCADE,
            import_id uuid NOT NULL,
            line bigint NOT NULL,
            column_name text NOT NULL,
            reason text NOT NULL,
            cells jsonb NOT NULL,
            CONSTRAINT pk_import_rejects PRIMARY KEY (tenant_id, import_id, line),
            CONSTRAINT fk_import_rejects_tenant_id_import_id_contact_imports
                FOREIGN KEY (tenant_id, import_id) REFERENCES contact_imports ON DELETE CASCADE
        )""")
    protect("import_rejects")


def downgrade() -> None:
    op.execute("DROP TABLE import_rejects, contact_imports, contacts")
