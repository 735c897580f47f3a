"""Nothing of a file that is imported is seen in a log line, at DEBUG and around a crash too."""

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from jangada.contacts import service
from jangada.contacts.schemas import ImportOptions
from jangada.files.schemas import Label
from jangada.files.uploads import receive
from jangada.jobs.models import Job, JobState

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

FILE = b"""\
Canary,email,phone,name
canary,canary.one@example.org,,Canary
=canary,canary at example.org,(11) 98765-4321,canary
canary,canary.two@example.org,canary,Canary
"""


@dataclass
class Sent:
    """A file that is being sent."""

    announced_bytes: int | None = None
    label: Label = Label("canary.csv", "text/csv")  # noqa: RUF009 - frozen

    async def chunks(self) -> AsyncIterator[bytes]:
        yield FILE


async def start_import(raft: "Raft") -> Job:
    runtime, tenant_id = raft.runtime, raft.person.tenant_id
    async with (
        receive(runtime, tenant_id, Sent()) as received,
        runtime.database.transaction(tenant_id) as session,
    ):
        file = await received.finish(session)
        return await service.start_import(session, file, ImportOptions(default_region="BR"))


async def until_merging(raft: "Raft", job: Job) -> int:
    """The process that wants to write the file's contacts, while their table is locked."""

    async def found() -> int:
        rows = await raft.execute(
            "SELECT workers.pid FROM jobs JOIN workers ON workers.id = jobs.worker_id"
            " WHERE jobs.id = :job AND EXISTS (SELECT FROM pg_locks"
            " WHERE relation = 'contacts'::regclass AND NOT granted)",
            job=job.id,
        )
        return int(rows[0][0]) if rows else 0

    pid: int = await raft.until(found)
    return pid


async def test_an_import_whose_process_is_killed_logs_no_cell(raft: "Raft") -> None:
    talkative: dict[str, Any] = {
        "telemetry__log_level": "DEBUG",
        "storage__url": raft.settings.storage.url,
        "contacts__batch_rows": 10,
    }
    programs = [await raft.start(name, **talkative) for name in ("dispatcher", "worker")]
    async with raft.runtime.database.direct() as connection, connection.transaction():
        await connection.execute("LOCK TABLE contacts IN ACCESS EXCLUSIVE MODE")
        job = await start_import(raft)
        os.kill(await until_merging(raft, job), signal.SIGKILL)
    row = await raft.until_state(job)
    assert (row.state, row.crashes) == (JobState.COMPLETED, 1)
    assert row.result is not None
    assert (row.result["inserted"], row.result["rejected"]) == (1, 2)
    for program in programs:
        assert await program.stop() == 0
        lines = program.log.read_text().lower()
        assert '"level":"debug"' in lines.replace(" ", "")
        assert "canary" not in lines
