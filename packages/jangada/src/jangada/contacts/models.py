"""Tables of contacts, imports and rejected rows, and the predicates over them."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, ForeignKeyConstraint, and_, literal_column
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

import jangada.files.models
import jangada.jobs.models
import jangada.tenants.models  # noqa: F401 - the tables that these refer to
from jangada.db import Base, TenantEntity

LAST_CHARACTER: Final = "\U0010ffff"


class Contact(TenantEntity):
    """A person or a company. `name_key` is the name as it is searched.

    E-mail address, or the phone where there is none, are unique in the tenant.
    """

    __tablename__ = "contacts"

    email: Mapped[str | None]
    phone: Mapped[str | None]
    name: Mapped[str] = mapped_column(default="")
    name_key: Mapped[str] = mapped_column(default="")
    company: Mapped[str] = mapped_column(default="")
    attributes: Mapped[dict[str, Any]] = mapped_column(default=dict)


class ContactImport(TenantEntity):
    """One imported file. Its id is its job's, and the job holds options, progress and result.

    Encoding, delimiter and header are known once it is through. The file goes when it is.
    """

    __tablename__ = "contact_imports"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "id"], ["jobs.tenant_id", "jobs.id"]),
        ForeignKeyConstraint(["tenant_id", "file_id"], ["files.tenant_id", "files.id"]),
    )

    file_id: Mapped[UUID | None]
    file_name: Mapped[str]
    encoding: Mapped[str | None]
    delimiter: Mapped[str | None]
    header: Mapped[list[str] | None]


class ImportReject(Base):
    """A row that an import rejected, with its cells as they came."""

    __tablename__ = "import_rejects"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "import_id"], ["contact_imports.tenant_id", "contact_imports.id"]
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    import_id: Mapped[UUID] = mapped_column(primary_key=True)
    line: Mapped[int] = mapped_column(BigInteger(), primary_key=True)
    column_name: Mapped[str]
    reason: Mapped[str]
    cells: Mapped[list[Any]]


def begins_with(column: InstrumentedAttribute[Any], prefix: str) -> ColumnElement[bool]:
    """Texts with this prefix, as a range that an index answers under row-level security too."""
    return and_(column >= prefix, column < prefix + LAST_CHARACTER)


def is_named(prefix: str) -> ColumnElement[bool]:
    """Names with this prefix, in their normal form.

    That they aren't empty, as those in the index, is written out: a plan that is made for any
    prefix couldn't know it.
    """
    found = begins_with(Contact.name_key, prefix)
    return and_(Contact.name_key > literal_column("''"), found) if prefix else found
