"""Imports that a worker gives up."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from jangada.contacts import service
from jangada.contacts.schemas import ImportOptions
from jangada.files.blobs import open_blobs
from jangada.files.schemas import Label
from jangada.files.uploads import receive
from jangada.jobs.models import JobState
from jangada.runtime import Runtime
from jangada.testing import Person
from jangada_worker import contacts
from jangada_worker.testing import InlineWorker

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Sent:
    """A file that is being sent."""

    announced_bytes: int | None = None
    label: Label = Label("contacts.csv", "text/csv")  # noqa: RUF009 - frozen

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"email\nana@example.com\n"


async def test_an_import_whose_file_is_gone_is_given_up_and_says_so(
    runtime: Runtime, inline_worker: InlineWorker, person: Person
) -> None:
    """As after a restore that is older than the files: trying again would only fail again."""
    assert contacts.__name__, "its handlers are registered"
    async with (
        receive(runtime, person.tenant_id, Sent()) as received,
        runtime.database.transaction(person.tenant_id) as session,
    ):
        file = await received.finish(session)
        job = await service.start_import(session, file, ImportOptions(default_region="BR"))
    await open_blobs(runtime.settings.storage).delete(file.blob_key)
    ran = await inline_worker.run(job)
    assert ran.job.state == JobState.DISCARDED
    assert [each["code"] for each in ran.job.errors] == ["storage.blob_not_found"]
