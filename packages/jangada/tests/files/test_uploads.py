"""From the first byte to the row in the caller's transaction, or to nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import select, text

from jangada.config import Settings, StorageSettings
from jangada.db import Database
from jangada.errors import NotFound, Unavailable
from jangada.files import service
from jangada.files.blobs import open_blobs
from jangada.files.errors import (
    StorageUnavailable,
    UploadLost,
)
from jangada.files.models import File, FileState
from jangada.files.schemas import Label
from jangada.files.uploads import receive, sweep_uploads, sweeping
from jangada.local.postgres import EmbeddedPostgres
from jangada.runtime import Runtime
from jangada.tenants.models import Tenant
from jangada.testing import PATIENCE, Person, eventually_not, make_person

pytestmark = pytest.mark.anyio

NEVER = timedelta(hours=1)


@dataclass
class Sent:
    """A file that is being sent, chunk by chunk."""

    content: Iterable[bytes] = (b"name;email\n", b"Ana;ana@example.com\n")
    announced_bytes: int | None = None
    label: Label = field(default_factory=lambda: Label("contacts.csv", "text/csv"))
    fails_with: BaseException | None = None
    asked: list[int] = field(default_factory=list)
    waits_for: asyncio.Event | None = None
    is_streaming: asyncio.Event = field(default_factory=asyncio.Event)

    async def chunks(self) -> AsyncIterator[bytes]:
        for number, chunk in enumerate(self.content):
            self.asked.append(number)
            yield chunk
        self.is_streaming.set()
        if self.waits_for is not None:
            await self.waits_for.wait()
        if self.fails_with is not None:
            raise self.fails_with


def stored_files(settings: Settings) -> list[Path]:
    root = Path(settings.storage.url.removeprefix("file://"))
    return [path for path in root.rglob("*") if path.is_file()]


async def rows(runtime: Runtime) -> list[tuple[str, int]]:
    async with runtime.database.system_transaction("test") as session:
        found = await session.execute(text("SELECT state, size_bytes FROM files ORDER BY id"))
        return [(state, size) for state, size in found]


async def tombstones(runtime: Runtime) -> int:
    async with runtime.database.system_transaction("test") as session:
        return int(await session.scalar(text("SELECT count(*) FROM deleted_blobs")) or 0)


async def assert_nothing_left(runtime: Runtime) -> None:
    assert await rows(runtime) == []
    assert await tombstones(runtime) == 0
    assert stored_files(runtime.settings) == []


async def upload(runtime: Runtime, tenant_id: UUID, sent: Sent) -> File:
    async with (
        receive(runtime, tenant_id, sent) as received,
        runtime.database.transaction(tenant_id) as session,
    ):
        return await received.finish(session)


async def expire_leases(database: Database) -> None:
    async with database.system_transaction("test") as session:
        await session.execute(
            text(
                "UPDATE files SET lease_expires_at = now() - interval '1 s'"
                " WHERE state = 'uploading'"
            )
        )


async def test_a_received_file_is_stored(runtime: Runtime, tenant: Tenant) -> None:
    file = await upload(runtime, tenant.id, Sent())

    content = b"name;email\nAna;ana@example.com\n"
    assert (file.name, file.media_type, file.state) == ("contacts.csv", "text/csv", "stored")
    assert file.size_bytes == len(content)
    blobs = open_blobs(runtime.settings.storage)
    assert b"".join([chunk async for chunk in blobs.open(file.blob_key)]) == content


async def test_the_row_is_invisible_until_the_callers_commit(
    runtime: Runtime, tenant: Tenant
) -> None:
    async with receive(runtime, tenant.id, Sent()) as received:
        async with runtime.database.transaction(tenant.id) as session:
            await received.finish(session)
            async with runtime.database.read(tenant.id) as other:
                with pytest.raises(NotFound):
                    await service.get_file(other, tenant.id, received.upload.id)
        async with runtime.database.read(tenant.id) as other:
            await service.get_file(other, tenant.id, received.upload.id)


async def test_a_sender_that_leaves_leaves_nothing(runtime: Runtime, tenant: Tenant) -> None:
    with pytest.raises(ConnectionResetError):
        await upload(runtime, tenant.id, Sent(fails_with=ConnectionResetError()))
    await assert_nothing_left(runtime)


async def test_a_block_that_does_not_finish_leaves_nothing(
    runtime: Runtime, tenant: Tenant
) -> None:
    async with receive(runtime, tenant.id, Sent()):
        assert len(stored_files(runtime.settings)) == 1
    await assert_nothing_left(runtime)


async def test_a_commit_that_fails_leaves_nothing(runtime: Runtime, tenant: Tenant) -> None:
    async def run() -> None:
        async with (
            receive(runtime, tenant.id, Sent()) as received,
            runtime.database.transaction(tenant.id) as session,
        ):
            await received.finish(session)
            raise RuntimeError("the import row is refused")

    with pytest.raises(RuntimeError, match="the import row is refused"):
        await run()
    await assert_nothing_left(runtime)


async def test_a_commit_in_doubt_that_happened_keeps_the_file(
    runtime: Runtime, tenant: Tenant
) -> None:
    """The connection broke while PostgreSQL answered the commit: an error here, a row there."""

    async def run() -> None:
        async with receive(runtime, tenant.id, Sent()) as received:
            async with runtime.database.transaction(tenant.id) as session:
                await received.finish(session)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await run()
    assert await rows(runtime) == [("stored", 31)]
    assert len(stored_files(runtime.settings)) == 1


async def test_cancelling_while_it_streams_leaves_nothing(runtime: Runtime, tenant: Tenant) -> None:
    sent = Sent(content=[bytes(1 << 20)] * 3, waits_for=asyncio.Event())
    task = asyncio.create_task(upload(runtime, tenant.id, sent))
    await asyncio.wait_for(sent.is_streaming.wait(), PATIENCE)
    assert await rows(runtime) == [("uploading", 64 << 20)]
    assert len(stored_files(runtime.settings)) == 1

    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await assert_nothing_left(runtime)


async def test_a_database_that_is_away_at_the_abort_leaves_it_to_the_sweep(
    runtime: Runtime, tenant: Tenant, postgres: EmbeddedPostgres
) -> None:
    async def run() -> None:
        async with receive(runtime, tenant.id, Sent()):
            await allow_connections(postgres, runtime, is_allowed=False)
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await run()
    await allow_connections(postgres, runtime, is_allowed=True)
    assert len(stored_files(runtime.settings)) == 1
    assert await sweep_uploads(runtime) == 0, "its lease holds"
    await expire_leases(runtime.database)
    assert await sweep_uploads(runtime) == 1
    await assert_nothing_left(runtime)


async def allow_connections(
    postgres: EmbeddedPostgres, runtime: Runtime, *, is_allowed: bool
) -> None:
    """Refusing new connections, it ends those that there are."""
    name = str(conninfo_to_dict(runtime.settings.database.url.get_secret_value())["dbname"])
    async with await psycopg.AsyncConnection.connect(postgres.admin_url, autocommit=True) as admin:
        statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        await admin.execute(statement.format(sql.Identifier(name), is_allowed))
        await admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s",
            (name,),
        )


async def test_a_foreign_tenants_file_is_not_found(
    runtime: Runtime, tenant: Tenant, database: Database
) -> None:
    file = await upload(runtime, tenant.id, Sent())
    stranger = await make_person(database, "Rui")
    async with database.read(stranger.tenant_id) as session:
        with pytest.raises(NotFound):
            await service.get_file(session, stranger.tenant_id, file.id)
        assert list(await session.execute(text("SELECT 1 FROM files"))) == []
        assert list(await session.execute(text("SELECT 1 FROM deleted_blobs"))) == []


async def test_the_lease_is_renewed_while_the_sender_takes_its_time(
    runtime: Runtime, tenant: Tenant
) -> None:
    sent, lease = Sent(waits_for=asyncio.Event()), timedelta(seconds=3)

    async def slow() -> File:
        async with (
            receive(runtime, tenant.id, sent, lease=lease) as received,
            runtime.database.transaction(tenant.id) as session,
        ):
            return await received.finish(session)

    task = asyncio.create_task(slow())
    await asyncio.wait_for(sent.is_streaming.wait(), PATIENCE)
    before = await lease_end(runtime)
    async with asyncio.timeout(PATIENCE):
        while await lease_end(runtime) <= before + lease:
            assert await sweep_uploads(runtime) == 0
    assert sent.waits_for is not None
    sent.waits_for.set()
    assert (await task).state == FileState.STORED


async def lease_end(runtime: Runtime) -> datetime:
    async with runtime.database.system_transaction("test") as session:
        end: datetime | None = await session.scalar(select(File.lease_expires_at))
    assert end is not None
    return end


async def test_an_upload_that_was_taken_for_dead_cannot_finish(
    runtime: Runtime, tenant: Tenant
) -> None:
    async def run() -> None:
        async with receive(runtime, tenant.id, Sent(), lease=NEVER) as received:
            await expire_leases(runtime.database)
            assert await sweep_uploads(runtime) == 1
            async with runtime.database.transaction(tenant.id) as session:
                await received.finish(session)

    with pytest.raises(UploadLost):
        await run()
    await assert_nothing_left(runtime)


async def test_an_upload_that_is_lost_while_it_streams_ends(
    runtime: Runtime, tenant: Tenant
) -> None:
    class Endless(Sent):
        async def chunks(self) -> AsyncIterator[bytes]:
            self.is_streaming.set()
            while True:
                await asyncio.sleep(0)
                yield b"x"

    sent = Endless()

    async def run() -> None:
        async with receive(runtime, tenant.id, sent, lease=timedelta(milliseconds=200)):
            raise AssertionError("it cannot end otherwise")

    task = asyncio.create_task(run())
    await asyncio.wait_for(sent.is_streaming.wait(), PATIENCE)
    async with runtime.database.system_transaction("test") as session:
        await session.execute(text("DELETE FROM files"))
    with pytest.raises(UploadLost):
        await asyncio.wait_for(task, PATIENCE)
    await assert_nothing_left(runtime)


async def test_deleting_a_tenant_leaves_no_content(
    runtime: Runtime, person: Person, database: Database
) -> None:
    await upload(runtime, person.tenant_id, Sent())
    async with database.system_transaction("test") as session:
        await session.execute(text("DELETE FROM tenants"))
    assert len(stored_files(runtime.settings)) == 1
    assert await sweep_uploads(runtime) == 1
    await assert_nothing_left(runtime)


async def test_sweeping_goes_on_by_itself(runtime: Runtime, tenant: Tenant) -> None:
    file = await upload(runtime, tenant.id, Sent())
    async with sweeping(runtime, every=timedelta(milliseconds=20)):
        async with runtime.database.transaction(tenant.id) as session:
            await service.delete_file(session, tenant.id, file.id)
        await eventually_not(lambda: rows(runtime))
        await eventually_not(lambda: tombstones(runtime))
    await assert_nothing_left(runtime)


async def test_sweeping_outlives_a_database_that_is_away(
    runtime: Runtime, tenant: Tenant, postgres: EmbeddedPostgres
) -> None:
    file = await upload(runtime, tenant.id, Sent())
    async with sweeping(runtime, every=timedelta(milliseconds=20)):
        await allow_connections(postgres, runtime, is_allowed=False)
        with pytest.raises(Unavailable):
            await sweep_uploads(runtime)
        await allow_connections(postgres, runtime, is_allowed=True)
        async with runtime.database.transaction(tenant.id) as session:
            await service.delete_file(session, tenant.id, file.id)
        await eventually_not(lambda: tombstones(runtime))
    await assert_nothing_left(runtime)


async def test_a_deletion_that_rolls_back_keeps_the_content(
    runtime: Runtime, tenant: Tenant
) -> None:
    file = await upload(runtime, tenant.id, Sent())

    async def run() -> None:
        async with runtime.database.transaction(tenant.id) as session:
            await service.delete_file(session, tenant.id, file.id)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await run()
    assert await sweep_uploads(runtime) == 0
    assert len(stored_files(runtime.settings)) == 1


async def test_content_that_cannot_be_removed_is_tried_again_after_the_others(
    runtime: Runtime, tenant: Tenant, tmp_path: Path
) -> None:
    files = [await upload(runtime, tenant.id, Sent()) for _ in range(2)]
    stuck = tmp_path / "files" / files[0].blob_key
    stuck.unlink()
    (stuck / "in the way").mkdir(parents=True)
    async with runtime.database.transaction(tenant.id) as session:
        for file in files:
            await service.delete_file(session, tenant.id, file.id)

    assert await sweep_uploads(runtime) == 1
    assert await tombstones(runtime) == 1
    (stuck / "in the way").rmdir()
    stuck.rmdir()
    assert await sweep_uploads(runtime) == 1
    await assert_nothing_left(runtime)


async def test_a_store_that_fails_is_unavailable_and_leaves_nothing(
    runtime: Runtime, tenant: Tenant, tmp_path: Path
) -> None:
    (tmp_path / "files").write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailable):
        await upload(runtime, tenant.id, Sent())
    assert await rows(runtime) == []


async def test_an_upload_that_is_being_finished_is_not_swept(
    runtime: Runtime, tenant: Tenant
) -> None:
    """Its lease may be over: whoever holds the row's lock is alive."""
    async with receive(runtime, tenant.id, Sent(), lease=NEVER) as received:
        await expire_leases(runtime.database)
        async with runtime.database.transaction(tenant.id) as session:
            await received.finish(session)
            assert await sweep_uploads(runtime) == 0
            async with runtime.database.transaction(tenant.id) as other:
                await service.begin_upload(
                    other,
                    tenant.id,
                    announced_bytes=1,
                    limits=StorageSettings(),
                    lease=timedelta(0),
                )
    assert ("stored", 31) in await rows(runtime)
