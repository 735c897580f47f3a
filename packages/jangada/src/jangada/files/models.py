"""Tables of files and of blobs that are to be removed, and the predicates over them."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, func
from sqlalchemy.orm import Mapped, mapped_column

import jangada.tenants.models  # noqa: F401 - the tables that these refer to
from jangada.db import Base, TenantEntity


class FileState(StrEnum):
    """An upload is under way until the transaction that makes use of the file commits."""

    UPLOADING = "uploading"
    STORED = "stored"


class File(TenantEntity):
    """One file. While it is uploaded `size_bytes` is what it may take, afterwards what it takes.

    Name and media type are set once the file is stored. The lease of an upload is counted by
    PostgreSQL's clock.
    """

    __tablename__ = "files"

    state: Mapped[FileState]
    name: Mapped[str | None]
    media_type: Mapped[str | None]
    size_bytes: Mapped[int] = mapped_column(BigInteger())
    blob_key: Mapped[str]
    lease_expires_at: Mapped[datetime | None]
    stored_at: Mapped[datetime | None]
    created_by: Mapped[UUID | None]


class DeletedBlob(Base):
    """A blob whose row is gone: written by a trigger, removed with the blob. Outlives tenants."""

    __tablename__ = "deleted_blobs"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    blob_key: Mapped[str] = mapped_column(primary_key=True)
    deleted_at: Mapped[datetime]


def is_stored() -> ColumnElement[bool]:
    return File.state == FileState.STORED


def is_under_way() -> ColumnElement[bool]:
    return (File.state == FileState.UPLOADING) & ~_lease_is_over()


def is_abandoned() -> ColumnElement[bool]:
    """Its uploader died, or lost the database for longer than its lease."""
    return (File.state == FileState.UPLOADING) & _lease_is_over()


def _lease_is_over() -> ColumnElement[bool]:
    return File.lease_expires_at < func.clock_timestamp()
