"""How much a tenant may store and upload at once, over all processes."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text, update

from jangada.config import Settings
from jangada.db import Database
from jangada.files import service
from jangada.files.errors import (
    FileTooLarge,
    StorageQuotaExceeded,
    TooManyUploads,
    UploadsBusy,
)
from jangada.files.models import File
from jangada.files.schemas import Label
from jangada.files.uploads import receive, sweep_uploads
from jangada.runtime import Runtime, open_runtime
from jangada.tenants.models import Tenant
from jangada.testing import Person, eventually, make_person

pytestmark = pytest.mark.anyio


@dataclass
class Sent:
    """A file that is being sent, chunk by chunk."""

    content: Iterable[bytes] = (b"name;email\n", b"Ana;ana@example.com\n")
    announced_bytes: int | None = None
    label: Label = field(default_factory=lambda: Label("contacts.csv", "text/csv"))
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


def limited(settings: Settings, **limits: object) -> Settings:
    storage = settings.storage.model_copy(update=limits)
    return settings.model_copy(update={"storage": storage})


async def rows(runtime: Runtime) -> list[tuple[str, int]]:
    async with runtime.database.system_transaction("test") as session:
        found = await session.execute(text("SELECT state, size_bytes FROM files ORDER BY id"))
        return [(state, size) for state, size in found]


def stored_files(settings: Settings) -> list[Path]:
    root = Path(settings.storage.url.removeprefix("file://"))
    return [path for path in root.rglob("*") if path.is_file()]


async def assert_nothing_left(runtime: Runtime) -> None:
    assert await rows(runtime) == []
    assert stored_files(runtime.settings) == []


async def upload(runtime: Runtime, tenant_id: UUID, sent: Sent) -> File:
    async with (
        receive(runtime, tenant_id, sent) as received,
        runtime.database.transaction(tenant_id) as session,
    ):
        return await received.finish(session)


async def test_quota_is_checked_before_a_byte_is_asked_for(
    settings: Settings, tenant: Tenant
) -> None:
    async with open_runtime(limited(settings, max_stored_bytes_per_tenant=40)) as runtime:
        sent = Sent(announced_bytes=41)
        with pytest.raises(StorageQuotaExceeded):
            await upload(runtime, tenant.id, sent)
        assert sent.asked == []
        await assert_nothing_left(runtime)


async def test_a_size_beyond_the_limit_is_refused_unread(
    settings: Settings, tenant: Tenant
) -> None:
    async with open_runtime(limited(settings, max_upload_bytes=1024)) as runtime:
        sent = Sent(announced_bytes=1025)
        with pytest.raises(FileTooLarge):
            await upload(runtime, tenant.id, sent)
        assert sent.asked == []


async def test_what_is_stored_counts_against_the_quota(settings: Settings, tenant: Tenant) -> None:
    async with open_runtime(limited(settings, max_stored_bytes_per_tenant=61)) as runtime:
        file = await upload(runtime, tenant.id, Sent(announced_bytes=31))
        with pytest.raises(StorageQuotaExceeded):
            await upload(runtime, tenant.id, Sent(announced_bytes=31))
        async with runtime.database.transaction(tenant.id) as session:
            await service.delete_file(session, tenant.id, file.id)
        await upload(runtime, tenant.id, Sent(announced_bytes=31))


async def test_an_unannounced_size_is_counted_while_it_streams(
    settings: Settings, tenant: Tenant
) -> None:
    async with open_runtime(limited(settings, max_stored_bytes_per_tenant=100_000)) as runtime:
        sent = Sent(content=[bytes(40_000)] * 10)
        with pytest.raises(StorageQuotaExceeded):
            await upload(runtime, tenant.id, sent)
        assert sent.asked == [0, 1, 2]
        await assert_nothing_left(runtime)


async def test_an_unannounced_size_may_use_all_the_room_there_is(
    settings: Settings, tenant: Tenant
) -> None:
    async with open_runtime(limited(settings, max_stored_bytes_per_tenant=80_000)) as runtime:
        await upload(runtime, tenant.id, Sent(content=[bytes(40_000)] * 2))
        assert await rows(runtime) == [("stored", 80_000)]


async def test_the_reservation_grows_with_the_file(runtime: Runtime, tenant: Tenant) -> None:
    sent = Sent(content=[bytes(1 << 20)] * 65, waits_for=asyncio.Event())
    task = asyncio.create_task(upload(runtime, tenant.id, sent))
    await asyncio.wait_for(sent.is_streaming.wait(), 30)
    assert await rows(runtime) == [("uploading", 129 << 20)]
    assert sent.waits_for is not None
    sent.waits_for.set()
    await task
    assert await rows(runtime) == [("stored", 65 << 20)]


async def test_bytes_beyond_the_limit_end_an_unannounced_upload(
    settings: Settings, tenant: Tenant
) -> None:
    async with open_runtime(limited(settings, max_upload_bytes=2048)) as runtime:
        with pytest.raises(FileTooLarge):
            await upload(runtime, tenant.id, Sent(content=[bytes(1024)] * 3))
        await assert_nothing_left(runtime)


async def test_uploads_at_once_are_bounded_over_all_processes(
    settings: Settings, tenant: Tenant
) -> None:
    """Each runtime stands for a process: they share nothing but PostgreSQL."""
    few = limited(settings, max_uploads_per_tenant=3)
    async with AsyncExitStack() as stack:
        runtimes = [await stack.enter_async_context(open_runtime(few)) for _ in range(4)]
        gate = asyncio.Event()
        outcomes = [
            asyncio.create_task(upload(runtime, tenant.id, Sent(waits_for=gate)))
            for runtime in runtimes * 2
        ]
        refused, _ = await asyncio.wait(outcomes, timeout=30, return_when="FIRST_COMPLETED")
        while len(refused) < 5:
            refused, _ = await asyncio.wait(
                set(outcomes) - refused, timeout=30, return_when="FIRST_COMPLETED"
            )
            refused = {task for task in outcomes if task.done()}
        gate.set()
        results = await asyncio.gather(*outcomes, return_exceptions=True)
    assert sum(isinstance(result, File) for result in results) == 3
    assert sum(isinstance(result, TooManyUploads) for result in results) == 5


async def test_quota_holds_when_uploads_begin_at_once(settings: Settings, tenant: Tenant) -> None:
    tight = limited(settings, max_stored_bytes_per_tenant=100, max_uploads_per_tenant=100)
    async with AsyncExitStack() as stack:
        runtimes = [await stack.enter_async_context(open_runtime(tight)) for _ in range(4)]
        results = await asyncio.gather(
            *(upload(runtime, tenant.id, Sent(announced_bytes=31)) for runtime in runtimes * 3),
            return_exceptions=True,
        )
    assert sum(isinstance(result, File) for result in results) == 3
    assert sum(isinstance(result, StorageQuotaExceeded) for result in results) == 9


async def test_another_tenants_uploads_do_not_count(
    settings: Settings, person: Person, database: Database
) -> None:
    other = await make_person(database, "Rui")
    async with (
        open_runtime(limited(settings, max_uploads_per_tenant=1)) as runtime,
        receive(runtime, person.tenant_id, Sent()),
    ):
        await upload(runtime, other.tenant_id, Sent())
        with pytest.raises(TooManyUploads):
            await upload(runtime, person.tenant_id, Sent())


async def test_a_process_receives_a_bounded_number_of_all_tenants(
    settings: Settings, person: Person, database: Database
) -> None:
    """Each takes memory. Who is refused was asked for nothing, and the place is free afterwards."""
    other = await make_person(database, "Rui")
    refused = Sent()
    few = limited(settings, max_uploads_per_process=1, max_upload_bytes=1024)
    async with open_runtime(few) as runtime:
        async with receive(runtime, person.tenant_id, Sent()):
            with pytest.raises(UploadsBusy) as busy:
                await upload(runtime, other.tenant_id, refused)
        assert busy.value.retry_after
        assert refused.asked == []
        with pytest.raises(FileTooLarge):
            await upload(runtime, other.tenant_id, Sent(announced_bytes=1025))
        assert (await upload(runtime, other.tenant_id, Sent())).tenant_id == other.tenant_id
        assert [state for state, _ in await rows(runtime)] == ["stored"]


async def test_a_tenant_whose_requests_wait_takes_no_place_of_others(
    settings: Settings, person: Person, database: Database
) -> None:
    """Until they are refused each would hold one, for as long as the quota's row is locked."""
    other = await make_person(database, "Rui")
    few = limited(settings, max_uploads_per_process=3, max_uploads_per_tenant=2)
    async with open_runtime(few) as runtime:
        async with database.transaction(person.tenant_id) as session:
            await session.execute(update(Tenant).values(name=Tenant.name))
            waiting = [
                asyncio.create_task(upload(runtime, person.tenant_id, Sent())) for _ in range(2)
            ]
            await eventually(lambda: runtime.uploads[person.tenant_id] == 2)
            for _ in range(5):
                with pytest.raises(TooManyUploads):
                    await upload(runtime, person.tenant_id, Sent())
            assert (await upload(runtime, other.tenant_id, Sent())).tenant_id == other.tenant_id
            assert not any(task.done() for task in waiting)
        assert len(await asyncio.gather(*waiting)) == 2
        assert runtime.uploads == {}


async def test_a_dead_uploader_neither_blocks_nor_keeps_room(
    settings: Settings, tenant: Tenant
) -> None:
    tight = limited(settings, max_uploads_per_tenant=1, max_stored_bytes_per_tenant=40)
    async with open_runtime(tight) as runtime:
        await abandon(runtime, tenant.id)
        await upload(runtime, tenant.id, Sent(announced_bytes=31))
        assert await rows(runtime) == [("stored", 31)]
        assert len(stored_files(tight)) == 2
        assert await sweep_uploads(runtime) == 1
        assert len(stored_files(tight)) == 1


async def abandon(runtime: Runtime, tenant_id: UUID) -> File:
    """An upload whose process died: a row with its lease over, and part of the content."""
    async with runtime.database.transaction(tenant_id) as session:
        row = await service.begin_upload(
            session,
            tenant_id,
            announced_bytes=31,
            limits=runtime.settings.storage,
            lease=timedelta(0),
        )
    part = Path(runtime.settings.storage.url.removeprefix("file://")) / f"{row.blob_key}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half a file")
    return row


async def test_the_constraint_refuses_a_stored_file_without_its_name(
    runtime: Runtime, tenant: Tenant
) -> None:
    file = await upload(runtime, tenant.id, Sent())
    with pytest.raises(Exception, match="ck_files_complete"):
        async with runtime.database.transaction(tenant.id) as session:
            await session.execute(update(File).where(File.id == file.id).values(name=None))
