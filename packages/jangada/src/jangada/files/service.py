"""Verbs on files. Those that take a session act in the caller's transaction, in its tenant.

The way of an upload: `begin_upload` commits a row with a lease, which reserves the bytes; the
content is stored under the row's key; `finish_upload` turns the row into a file in the transaction
that also writes whatever the file is for. `jangada.files.uploads.receive` leads through it.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import cast
from sqlalchemy.sql.elements import ColumnElement

from jangada import crud
from jangada.config import StorageSettings
from jangada.db import new_id
from jangada.files.blobs import MEBIBYTE
from jangada.files.errors import (
    FileNotFound,
    FileTooLarge,
    StorageQuotaExceeded,
    TooManyUploads,
    UploadLost,
)
from jangada.files.models import File, FileState, is_abandoned, is_stored, is_under_way
from jangada.files.schemas import Label
from jangada.tenants.models import Tenant

RESERVED_AHEAD: Final = 64 * MEBIBYTE
RETRY_AFTER: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant's files take, with all that is reserved for uploads under way."""

    bytes: int
    uploads: int


def visible(tenant_id: UUID) -> Select[File]:
    return select(File).where(File.tenant_id == tenant_id, is_stored())


async def get_file(session: AsyncSession, tenant_id: UUID, id: UUID) -> File:
    return await crud.fetch(session, visible(tenant_id), id, missing=FileNotFound)


async def delete_file(session: AsyncSession, tenant_id: UUID, id: UUID) -> None:
    """Delete a file; its content goes soon after the commit, by the sweep. Absent is fine."""
    await session.execute(delete(File).where(File.tenant_id == tenant_id, File.id == id))


async def begin_upload(
    session: AsyncSession,
    tenant_id: UUID,
    *,
    announced_bytes: int | None,
    limits: StorageSettings,
    lease: timedelta,
    created_by: UUID | None = None,
) -> File:
    """Reserve what the upload may take at most; where that isn't known, a first step of it.

    The caller commits before a byte is stored. Holds over all processes: uploads of a tenant begin
    one after another. What dead uploaders of the tenant left is removed first. Raises
    `FileTooLarge`, `TooManyUploads` and `StorageQuotaExceeded`.
    """
    await _lock_quota(session, tenant_id)
    await session.execute(
        delete(File).where(File.tenant_id == tenant_id, File.id.in_(abandoned(tenant_id)))
    )
    usage = await measure_usage(session, tenant_id)
    if usage.uploads >= limits.max_uploads_per_tenant:
        raise too_many_uploads(usage.uploads)
    upload = File(
        tenant_id=tenant_id,
        id=new_id(),
        state=FileState.UPLOADING,
        size_bytes=_reservation(announced_bytes, usage, limits),
        lease_expires_at=_lease_end(lease),
        created_by=created_by,
    )
    upload.blob_key = f"{tenant_id}/{upload.id}"
    return await crud.insert(session, upload)


def too_many_uploads(under_way: int) -> TooManyUploads:
    return TooManyUploads(
        f"{under_way} uploads are under way, and no more may be at once.", retry_after=RETRY_AFTER
    )


async def extend_upload(
    session: AsyncSession, upload: File, received_bytes: int, *, limits: StorageSettings
) -> int:
    """Reserve for an upload that turns out larger, a step ahead where the quota allows it.

    Returns what is reserved now. Raises `FileTooLarge`, `StorageQuotaExceeded` and `UploadLost`.
    """
    await _lock_quota(session, upload.tenant_id)
    usage = await measure_usage(session, upload.tenant_id, besides=upload.id)
    reserved = _reservation(received_bytes, usage, limits, ahead=RESERVED_AHEAD)
    await _change(session, upload, size_bytes=reserved)
    return reserved


async def renew_upload(session: AsyncSession, upload: File, lease: timedelta) -> None:
    """Say that the uploader lives. Raises `UploadLost` when it was taken for dead already."""
    await _change(session, upload, lease_expires_at=_lease_end(lease))


async def finish_upload(session: AsyncSession, upload: File, size_bytes: int, label: Label) -> File:
    """Turn the upload into a file, with the caller's other rows. Raises `UploadLost`."""
    await _change(
        session,
        upload,
        state=FileState.STORED,
        name=label.name,
        media_type=label.media_type,
        size_bytes=size_bytes,
        lease_expires_at=None,
        stored_at=func.clock_timestamp(),
    )
    return await get_file(session, upload.tenant_id, upload.id)


async def abort_upload(session: AsyncSession, upload: File) -> bool:
    """Give the upload up. False when it is a file by now: a commit in doubt did happen."""
    mine = (File.tenant_id == upload.tenant_id) & (File.id == upload.id)
    await session.execute(delete(File).where(mine, File.state == FileState.UPLOADING))
    return await session.scalar(select(File.id).where(mine)) is None


def abandoned(tenant_id: UUID) -> Select[UUID]:
    """Uploads whose lease is over, but for those that are being finished this moment."""
    return (
        select(File.id)
        .where(File.tenant_id == tenant_id, is_abandoned())
        .with_for_update(skip_locked=True)
    )


async def measure_usage(
    session: AsyncSession, tenant_id: UUID, *, besides: UUID | None = None
) -> Usage:
    counts = select(
        func.coalesce(func.sum(File.size_bytes), 0), func.count().filter(is_under_way())
    ).where(File.tenant_id == tenant_id)
    if besides is not None:
        counts = counts.where(File.id != besides)
    stored, uploads = (await session.execute(counts)).one()
    return Usage(int(stored), uploads)


async def _lock_quota(session: AsyncSession, tenant_id: UUID) -> None:
    """Make whoever measures and reserves wait for the others of the same tenant."""
    await session.execute(
        select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True)
    )


async def _change(session: AsyncSession, upload: File, **values: object) -> None:
    """Change the row of an upload under way; its absence is how an uploader learns it was lost."""
    changed = await session.scalar(
        update(File)
        .where(
            File.tenant_id == upload.tenant_id,
            File.id == upload.id,
            File.state == FileState.UPLOADING,
        )
        .values(**values)
        .returning(File.id)
        .execution_options(synchronize_session=False)
    )
    if changed is None:
        raise UploadLost("The upload was taken for abandoned; send the file again.")


def _reservation(
    needed: int | None, usage: Usage, limits: StorageSettings, *, ahead: int = 0
) -> int:
    """The bytes to reserve: what is needed, and of what may be needed as much as there is room."""
    room = limits.max_stored_bytes_per_tenant - usage.bytes
    if needed is not None and needed > limits.max_upload_bytes:
        raise FileTooLarge(f"A file may have at most {limits.max_upload_bytes:,} bytes.")
    if room < (1 if needed is None else needed):
        raise StorageQuotaExceeded(
            f"With this file more than {limits.max_stored_bytes_per_tenant:,} bytes would be "
            f"stored, which is all that you may store. Delete imports first."
        )
    wanted = RESERVED_AHEAD if needed is None else needed + ahead
    return min(wanted, room, limits.max_upload_bytes)


def _lease_end(lease: timedelta) -> ColumnElement[object]:
    return func.clock_timestamp() + cast(lease, INTERVAL)
