"""Receiving a file: from the first byte to the row in the caller's transaction, or to nothing.

Guarantees
- The quota is checked, and an upload reserved, before the first byte is asked for. A process
  receives a bounded number at once, for each takes memory.
- Whatever ends the block without the file's row committed (an error of the sender or of the store,
  a transaction that fails, cancellation) leaves neither row nor content. What cannot be cleared
  up at once, because this process is killed or the database is away, `sweep_uploads` removes as
  soon as the lease is over.
- A commit in doubt (the connection broke while it was answered) is looked up, not guessed.
"""

import asyncio
from collections.abc import AsyncIterator, Buffer, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.errors import Unavailable
from jangada.files import service
from jangada.files.blobs import BlobStore, open_blobs
from jangada.files.errors import StorageUnavailable, UploadLost, UploadsBusy
from jangada.files.models import DeletedBlob, File, is_abandoned
from jangada.files.schemas import Incoming, Label
from jangada.runtime import Runtime
from jangada.telemetry import get_logger

log = get_logger(__name__)

LEASE: Final = timedelta(seconds=30)
RENEWALS_PER_LEASE: Final = 3
ABORT_DEADLINE: Final = timedelta(seconds=10)
SWEPT_AT_ONCE: Final = 200
SWEEP_EVERY: Final = timedelta(seconds=30)


@dataclass(slots=True)
class Received:
    """A file whose content is stored and whose row is not yet: `finish` it, or it is gone."""

    upload: File
    size_bytes: int
    label: Label
    is_finished: bool = False

    async def finish(self, session: AsyncSession) -> File:
        """The file's row, in the caller's transaction. Raises `UploadLost`."""
        file = await service.finish_upload(session, self.upload, self.size_bytes, self.label)
        self.is_finished = True
        return file


@asynccontextmanager
async def receive(
    runtime: Runtime,
    tenant_id: UUID,
    incoming: Incoming,
    *,
    created_by: UUID | None = None,
    lease: timedelta = LEASE,
) -> AsyncIterator[Received]:
    """Store what comes in; the caller then commits its row with all that the file is for.

        async with receive(runtime, tenant_id, incoming) as received:
            async with runtime.database.transaction(tenant_id) as session:
                file = await received.finish(session)

    Raises `TooManyUploads` and `UploadsBusy` before anything is asked for, the errors of
    `begin_upload` before anything is read, `StorageUnavailable`, `UploadLost` and whatever the
    sender's side raises.
    """
    with _place(runtime, tenant_id):
        under_way = await _begin(runtime, tenant_id, incoming, created_by=created_by, lease=lease)
        renewing = asyncio.create_task(under_way.renew_forever())
        is_kept = False
        try:
            size = await under_way.blobs.put(under_way.row.blob_key, under_way.metered(incoming))
            received = Received(under_way.row, size, incoming.label)
            yield received
            is_kept = received.is_finished
        finally:
            try:
                await _end(renewing)
            finally:
                if not is_kept:
                    await asyncio.shield(under_way.abort())


@contextmanager
def _place(runtime: Runtime, tenant_id: UUID) -> Iterator[None]:
    """One of the uploads that this process receives at once, of which a tenant has its own at most.

    Without that, a tenant whose requests wait to be refused would take all places from the others.
    """
    limits, places = runtime.settings.storage, runtime.uploads
    if places[tenant_id] >= limits.max_uploads_per_tenant:
        raise service.too_many_uploads(places[tenant_id])
    if places.total() >= limits.max_uploads_per_process:
        raise UploadsBusy(
            "Too many files are being received at once; try again in a moment.",
            retry_after=service.RETRY_AFTER,
        )
    places[tenant_id] += 1
    try:
        yield
    finally:
        places[tenant_id] -= 1
        if not places[tenant_id]:
            del places[tenant_id]


@dataclass(slots=True)
class _UnderWay:
    """An upload while it streams: counts what comes, reserves more, keeps the lease."""

    runtime: Runtime
    blobs: BlobStore
    row: File
    lease: timedelta
    reserved: int
    received: int = 0
    is_lost: bool = False

    async def metered(self, incoming: Incoming) -> AsyncIterator[Buffer]:
        async for chunk in incoming.chunks():
            self.received += memoryview(chunk).nbytes
            if self.is_lost:
                raise UploadLost("The upload was taken for abandoned; send the file again.")
            if self.received > self.reserved:
                await self._reserve_more()
            yield chunk

    async def _reserve_more(self) -> None:
        async with self._transaction() as session:
            self.reserved = await service.extend_upload(
                session, self.row, self.received, limits=self.runtime.settings.storage
            )

    def _transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self.runtime.database.transaction(self.row.tenant_id)

    async def renew_forever(self) -> None:
        """Until cancelled or lost. A database that is away for a moment costs no upload."""
        while not self.is_lost:
            await asyncio.sleep(self.lease.total_seconds() / RENEWALS_PER_LEASE)
            try:
                async with self._transaction() as session:
                    await service.renew_upload(session, self.row, self.lease)
            except UploadLost:
                self.is_lost = True
            except Unavailable as error:
                log.warning("upload_lease_not_renewed", code=error.code)

    async def abort(self) -> None:
        """Remove row and content, unless the file's row was committed after all."""
        try:
            async with asyncio.timeout(ABORT_DEADLINE.total_seconds()):
                async with self._transaction() as session:
                    is_gone = await service.abort_upload(session, self.row)
                if is_gone:
                    await _remove(self.runtime, [(self.row.tenant_id, self.row.blob_key)])
        except (Unavailable, TimeoutError) as error:
            log.warning("upload_left_to_the_sweep", error=type(error).__name__)


@asynccontextmanager
async def sweeping(runtime: Runtime, *, every: timedelta = SWEEP_EVERY) -> AsyncIterator[None]:
    """Sweep now and then for as long as the block lasts: what receives uploads runs in one."""
    task = asyncio.create_task(_sweep_forever(runtime, every), name="files: sweep")
    try:
        yield
    finally:
        await _end(task)


async def _sweep_forever(runtime: Runtime, every: timedelta) -> None:
    while True:
        await asyncio.sleep(every.total_seconds())
        try:
            await sweep_uploads(runtime)
        except Exception as error:  # noqa: BLE001 - the next round will do
            log.warning("sweep_of_uploads_failed", error=type(error).__name__)


async def sweep_uploads(runtime: Runtime) -> int:
    """Remove abandoned uploads, and the content of deleted files. Returns how many blobs went.

    Any number of processes may do it at once. Every step may be done twice or be interrupted.
    """
    async with runtime.database.system_transaction("sweep of uploads") as session:
        abandoned = select(File.tenant_id, File.id).where(is_abandoned())
        batch = abandoned.limit(SWEPT_AT_ONCE).with_for_update(skip_locked=True)
        await session.execute(delete(File).where(tuple_(File.tenant_id, File.id).in_(batch)))
        gone = select(DeletedBlob.tenant_id, DeletedBlob.blob_key)
        blobs = await session.execute(gone.order_by(DeletedBlob.deleted_at).limit(SWEPT_AT_ONCE))
        found = [(tenant_id, key) for tenant_id, key in blobs]
    return await _remove(runtime, found) if found else 0


async def _remove(runtime: Runtime, found: list[tuple[UUID, str]]) -> int:
    """Remove blobs and then what remembers them; those that stay put move to the queue's end."""
    blobs = open_blobs(runtime.settings.storage)
    removed, failed = [], []
    for tenant_id, key in found:
        try:
            await blobs.delete(key)
            removed.append((tenant_id, key))
        except StorageUnavailable:
            failed.append((tenant_id, key))
    remembered = tuple_(DeletedBlob.tenant_id, DeletedBlob.blob_key)
    async with runtime.database.system_transaction("blobs removed") as session:
        await session.execute(delete(DeletedBlob).where(remembered.in_(removed)))
        await session.execute(
            update(DeletedBlob)
            .where(remembered.in_(failed))
            .values(deleted_at=func.clock_timestamp())
        )
    return len(removed)


async def _begin(
    runtime: Runtime,
    tenant_id: UUID,
    incoming: Incoming,
    *,
    created_by: UUID | None,
    lease: timedelta,
) -> _UnderWay:
    limits = runtime.settings.storage
    blobs = open_blobs(limits)
    async with runtime.database.transaction(tenant_id) as session:
        row = await service.begin_upload(
            session,
            tenant_id,
            announced_bytes=incoming.announced_bytes,
            limits=limits,
            lease=lease,
            created_by=created_by,
        )
    return _UnderWay(runtime, blobs, row, lease, reserved=row.size_bytes)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("upload_lease_not_renewed", exc_info=error)
