"""Imports without a worker: a stored file, its job granted by hand, one attempt run here."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from jangada.contacts import service
from jangada.contacts.exporting import export_rejects
from jangada.contacts.importing import import_contacts
from jangada.contacts.models import Contact
from jangada.contacts.schemas import ImportContacts, ImportOptions
from jangada.files.schemas import Label
from jangada.files.uploads import receive
from jangada.jobs import service as jobs
from jangada.jobs.context import JobContext
from jangada.jobs.models import Job
from jangada.runtime import Runtime
from jangada.tenants.models import Tenant


@dataclass
class Sent:
    """A file that is being sent."""

    content: bytes
    announced_bytes: int | None = None
    label: Label = Label("contacts.csv", "text/csv")  # noqa: RUF009 - frozen

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.content


@dataclass
class Importer:
    """Imports files into one tenant."""

    runtime: Runtime
    tenant_id: UUID

    def options(self, **options: Any) -> ImportOptions:  # noqa: ANN401 - of any field
        return ImportOptions(**{"default_region": "BR", **options})

    async def start(self, content: bytes | str, **options: Any) -> Job:  # noqa: ANN401 - of any field
        data = content.encode() if isinstance(content, str) else content
        chosen = self.options(**options)
        async with (
            receive(self.runtime, self.tenant_id, Sent(data)) as received,
            self.runtime.database.transaction(self.tenant_id) as session,
        ):
            file = await received.finish(session)
            return await service.start_import(session, file, chosen)

    async def granted(self, job: Job) -> JobContext:
        """What a worker's grant does."""
        async with self.runtime.database.system_transaction("test") as session:
            attempt = await session.scalar(
                text(
                    "UPDATE jobs SET state = 'running', attempt = attempt + 1 WHERE id = :id"
                    " RETURNING attempt"
                ),
                {"id": job.id},
            )
        return JobContext(self.runtime, self.tenant_id, job.id, attempt or 0, 20)

    async def run(self, job: Job) -> dict[str, Any]:
        context = await self.granted(job)
        await import_contacts(ImportContacts.model_validate(job.args), context)
        async with self.runtime.database.read(self.tenant_id) as session:
            result = (await jobs.get_job(session, self.tenant_id, job.id)).result
        assert result is not None
        return result

    async def __call__(self, content: bytes | str, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - of any field
        return await self.run(await self.start(content, **options))

    async def counts(self, content: bytes | str, **options: Any) -> dict[str, int]:  # noqa: ANN401 - of any field
        """The counts that aren't 0."""
        statistics = await self(content, **options)
        names = ("inserted", "updated", "unchanged", "skipped", "duplicates", "rejected")
        assert statistics["rows"] == sum(statistics[name] for name in names)
        return {name: statistics[name] for name in names if statistics[name]}

    async def contacts(self) -> list[Contact]:
        async with self.runtime.database.read(self.tenant_id) as session:
            found = await session.scalars(
                select(Contact).where(Contact.tenant_id == self.tenant_id).order_by(Contact.id)
            )
            return list(found)

    async def shown(self) -> set[tuple[str, str | None, str | None]]:
        return {(each.name, each.email, each.phone) for each in await self.contacts()}

    async def rejects(self, job: Job) -> str:
        async with self.runtime.database.read(self.tenant_id) as session:
            found, _ = await service.get_import(session, self.tenant_id, job.id)
        parts = [part async for part in export_rejects(self.runtime.database, found)]
        return b"".join(parts).decode()


type Import = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def importer(runtime: Runtime, tenant: Tenant) -> Importer:
    return Importer(runtime, tenant.id)
