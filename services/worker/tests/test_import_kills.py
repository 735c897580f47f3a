"""Imports whose workers are killed at every kind of moment end exactly as if nobody had died.

A worker is stepped: stopped, looked at from PostgreSQL's side, let go for a drawn while, until it
is where it is to die. Moments that are too short to be met that way are held by locks of the test.
"""

import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psutil
import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict

from jangada.contacts import service
from jangada.contacts.schemas import ImportOptions
from jangada.files.schemas import Label
from jangada.files.uploads import receive, sweep_uploads
from jangada.jobs.models import FINAL_STATES, Job, JobState
from jangada.local.postgres import EmbeddedPostgres
from jangada.testing import make_person

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.timeout(900)]

SEED = "IMPORT_KILLS_SEED"
ROWS = 12_000
KNOWN = 30
GATES = {"merging": 4711, "committing": 4712, "granting": 4713}

READING = """
    SELECT 1 FROM pg_stat_activity
    WHERE application_name = 'jangada-worker' AND datname = current_database() AND state = 'idle'
        AND (query LIKE '%TABLE staged_rejects%' OR query LIKE 'COPY staged%')
"""
WAITS_FOR_FILE = """
    SELECT 1 FROM pg_locks WHERE relation = 'files'::regclass AND NOT granted
        AND mode = 'AccessShareLock'
"""
STAGE_WAITS = """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND state = 'active'
        AND query LIKE '%staged%'
"""
TRIGGERS = f"""
    CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint);
        RETURN NEW;
    END $$;
    CREATE TRIGGER merging BEFORE INSERT ON contacts
        FOR EACH STATEMENT EXECUTE FUNCTION wait_at_gate({GATES["merging"]});
    CREATE CONSTRAINT TRIGGER committing AFTER UPDATE ON contact_imports
        INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_gate({GATES["committing"]});
    CREATE TRIGGER granting BEFORE UPDATE ON jobs
        FOR EACH ROW WHEN (NEW.state = 'running' AND OLD.state = 'available')
        EXECUTE FUNCTION wait_at_gate({GATES["granting"]});
"""


def content(number: int) -> str:
    """A file of which every count is known: see `EXPECTED`."""
    lines = ["name,email,phone"]
    for row in range(ROWS):
        if row % 50 == 7:
            lines.append(f"Bad {row},not an address,")
        elif row % 50 == 8:
            lines.append(f"Again,p{row - 20}.{number}@example.com,")
        elif row < KNOWN * 2:
            lines.append(f"Known,k{row % KNOWN}@example.com,")
        else:
            lines.append(f"P{row},p{row}.{number}@example.com,+55119{80_000_000 + row}")
    return "\n".join([*lines, ""])


def expected(number: int) -> tuple[dict[str, int], dict[str, str]]:
    """The counts of an import, and the contacts after it, made row by row."""
    contacts = {f"k{n}@example.com": "Known" if n % 2 else "Old" for n in range(KNOWN)}
    before, last, counts = dict(contacts), dict[str, str](), dict.fromkeys(COUNTS, 0)
    for line in content(number).splitlines()[1:]:
        name, email, _ = line.split(",")
        counts["rows"] += 1
        counts["rejected"] += "@" not in email
        counts["duplicates"] += email in last
        if "@" in email:
            last[email] = name
    for email, name in last.items():
        kind = "inserted" if email not in before else "updated"
        counts["unchanged" if before.get(email) == name else kind] += 1
    return counts, contacts | last


COUNTS = ("rows", "inserted", "updated", "unchanged", "skipped", "duplicates", "rejected")


@dataclass
class Sent:
    """A file that is being sent."""

    content: bytes
    announced_bytes: int | None = None
    label: Label = Label("contacts.csv", "text/csv")  # noqa: RUF009 - frozen

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.content


async def make_tenant(raft: "Raft", number: int) -> UUID:
    """A tenant that has some of the file's contacts already."""
    tenant_id = (await make_person(raft.runtime.database, f"P{number}")).tenant_id
    await raft.execute(
        "INSERT INTO contacts (tenant_id, id, email, name)"
        " SELECT :tenant, gen_random_uuid(), 'k' || n || '@example.com',"
        " CASE n % 2 WHEN 1 THEN 'Known' ELSE 'Old' END FROM generate_series(0, :last) n",
        tenant=tenant_id,
        last=KNOWN - 1,
    )
    return tenant_id


async def start_import(raft: "Raft", tenant_id: UUID, number: int) -> Job:
    runtime = raft.runtime
    async with (
        receive(runtime, tenant_id, Sent(content(number).encode())) as received,
        runtime.database.transaction(tenant_id) as session,
    ):
        file = await received.finish(session)
        return await service.start_import(session, file, ImportOptions(default_region="BR"))


class MissedError(Exception):
    """The import was through before it could be stopped: the machine has other things to do."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.id)
        self.job = job


type Start = Callable[[], Awaitable[Job]]
"""Has the import run: enqueues it, or finds it waiting for its next attempt."""


@dataclass
class Killer:
    """Kills the worker process of an import at a moment of a kind."""

    raft: "Raft"
    draw: random.Random
    superuser: dict[str, Any]

    async def until(self, job: Job, condition: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - whatever the condition answers
        """Wait until the condition answers something true. Raises `MissedError` past that."""

        async def met_or_missed() -> Any:  # noqa: ANN401 - whatever the condition answers
            if found := await condition():
                return found
            if (await self.raft.reload(job)).state in FINAL_STATES:
                raise MissedError(job)
            return None

        return await self.raft.until(met_or_missed)

    async def running_pid(self, job: Job) -> int:
        """The process that the job was granted to."""

        async def found() -> int:
            rows = await self.raft.execute(
                "SELECT workers.pid FROM jobs JOIN workers ON workers.id = jobs.worker_id"
                " WHERE jobs.id = :job AND jobs.state = 'running'",
                job=job.id,
            )
            return int(rows[0][0]) if rows else 0

        pid: int = await self.until(job, found)
        return pid

    async def pause(self) -> None:
        """A drawn while, in round trips to PostgreSQL."""
        for _ in range(self.draw.randrange(12)):
            await self.raft.execute("SELECT 1")

    async def step_into_reading(self, start: Start) -> tuple[Job, int]:
        """Let the process go in steps until the stage is there and no COPY; it stays stopped.

        Begins at a lock on the table of files, which is what an import reads first.
        """
        async with self.raft.runtime.database.direct() as connection, connection.transaction():
            async with self.closed("granting"):
                job = await start()
                await self.at_gate(job, "granting")
                await connection.execute("LOCK TABLE files IN ACCESS EXCLUSIVE MODE")
            pid = await self.running_pid(job)
            await self.until(job, lambda: self.raft.execute(WAITS_FOR_FILE))
            process = psutil.Process(pid)
            process.suspend()
        while not await self.raft.execute(READING):
            process.resume()
            await self.raft.execute("SELECT 1")
            process.suspend()
            if (await self.raft.reload(job)).state is not JobState.RUNNING:
                process.resume()
                raise MissedError(job)
        return job, pid

    async def at_gate(self, job: Job, gate: str) -> None:
        """Wait until somebody waits at the gate."""

        async def waiting() -> list[Any]:
            return await self.raft.execute(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = :gate"
                " AND NOT granted",
                gate=GATES[gate],
            )

        await self.until(job, waiting)

    @asynccontextmanager
    async def closed(self, gate: str) -> AsyncIterator[None]:
        async with self.raft.runtime.database.direct() as connection:
            await connection.execute("SELECT pg_advisory_lock(%s)", (GATES[gate],))
            yield

    async def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        await self.pause()

    async def reading(self, start: Start) -> Job:
        job, pid = await self.step_into_reading(start)
        await self.kill(pid)
        return job

    async def copying(self, start: Start) -> Job:
        """The next COPY begins and has to wait, because the stage is locked (by a superuser: it is
        the worker's own). Where that was the last one, the merge waits instead."""
        job, pid = await self.step_into_reading(start)
        connecting = AsyncConnection.connect(**self.superuser, connect_timeout=10)
        async with await connecting as connection, connection.transaction():
            await connection.execute(await self.lock_of_stage())
            psutil.Process(pid).resume()
            await self.until(job, lambda: self.raft.execute(STAGE_WAITS))
            await self.kill(pid)
        return job

    async def lock_of_stage(self) -> sql.Composed:
        rows = await self.raft.execute(
            "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'staged'"
        )
        return sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(
            sql.Identifier(rows[0][0], "staged")
        )

    async def merging(self, start: Start) -> Job:
        async with self.closed("merging"):
            job = await start()
            await self.at_gate(job, "merging")
            await self.kill(await self.running_pid(job))
        return job

    async def committing(self, start: Start) -> Job:
        """PostgreSQL is told to commit; whether it does, nobody hears."""
        async with self.closed("committing"):
            job = await start()
            await self.at_gate(job, "committing")
            await self.kill(await self.running_pid(job))
            if self.draw.random() < 0.5:
                await self.raft.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
                    " AND objid = :gate AND NOT granted",
                    gate=GATES["committing"],
                )
        return job

    async def acknowledging(self, start: Start) -> Job:
        """The job is granted, its message isn't acknowledged: Valkey takes no writes."""
        valkey = self.raft.runtime.valkey
        async with self.closed("granting"):
            job = await start()
            await self.at_gate(job, "granting")
            await valkey.client_pause(60_000, all=False)
        try:
            await self.kill(await self.running_pid(job))
        finally:
            await valkey.client_unpause()
        return job


type Kill = Callable[[Killer, Start], Awaitable[Job]]

MOMENTS: tuple[Kill, ...] = (
    Killer.reading,
    Killer.copying,
    Killer.merging,
    Killer.committing,
    Killer.acknowledging,
)


def blobs(raft: "Raft") -> list[Path]:
    root = Path(raft.settings.storage.url.removeprefix("file://"))
    return [path for path in root.rglob("*") if path.is_file()]


async def contacts_of(raft: "Raft", tenant_id: UUID) -> list[tuple[str, str]]:
    rows = await raft.execute(
        "SELECT email, name FROM contacts WHERE tenant_id = :tenant", tenant=tenant_id
    )
    return [tuple(row) for row in rows]


async def assert_exact(raft: "Raft", job: Job, number: int) -> None:
    """Contacts, statistics and rejects are those of one import."""
    row = await raft.until_state(job)
    counts, contacts = expected(number)
    assert row.state is JobState.COMPLETED, row.errors
    assert row.result is not None
    assert {name: row.result[name] for name in COUNTS} == counts
    assert sorted(await contacts_of(raft, job.tenant_id)) == sorted(contacts.items())
    rejects = await raft.execute(
        "SELECT count(*) FROM import_rejects WHERE import_id = :job", job=job.id
    )
    assert rejects[0][0] == counts["rejected"]


async def assert_nothing_is_left(raft: "Raft") -> None:
    """Neither stages of dead sessions nor files."""

    async def gone() -> bool:
        rows = await raft.execute(
            "SELECT 1 FROM pg_class WHERE relname IN ('staged', 'staged_rejects', 'latest')"
            " UNION ALL SELECT 1 FROM files"
        )
        return not rows

    await raft.until(gone)
    await sweep_uploads(raft.runtime)
    assert blobs(raft) == []


async def killed(killer: Killer, number: int, moments: Sequence[Kill]) -> bool:
    """One import, dead at these moments; exact in any case, and False where one was missed."""
    tenant_id = await make_tenant(killer.raft, number)
    first, *later = moments
    is_hit = True
    try:
        job = await first(killer, partial(start_import, killer.raft, tenant_id, number))
        for moment in later:
            job = await moment(killer, partial(killer.raft.reload, job))
    except MissedError as missed:
        job, is_hit = missed.job, False
    await assert_exact(killer.raft, job, number)
    return is_hit


async def test_killed_imports_end_exactly(raft: "Raft", postgres: EmbeddedPostgres) -> None:
    """Ten are killed once, each kind of moment twice; one more is killed twice."""
    seed = os.environ.get(SEED) or str(random.SystemRandom().randrange(1 << 32))
    sys.stdout.write(f"{SEED}={seed}\n")
    database = conninfo_to_dict(raft.settings.database.url.get_secret_value())["dbname"]
    superuser = {**conninfo_to_dict(postgres.admin_url), "dbname": database}
    killer = Killer(raft, random.Random(seed), superuser)  # noqa: S311 - moments, not secrets
    async with raft.runtime.database.direct() as connection:
        await connection.execute(TRIGGERS)
    await raft.dispatcher()
    await raft.start(
        "worker",
        storage__url=raft.settings.storage.url,
        contacts__batch_rows=100,
        worker__processes=2,
        worker__slots=1,
    )
    deaths = [[moment] for moment in MOMENTS * 2] + [killer.draw.choices(MOMENTS, k=2)]
    killer.draw.shuffle(deaths)
    for number, moments in enumerate(deaths):
        sys.stdout.write(f"{number}: {[moment.__name__ for moment in moments]}\n")
        while not await killed(killer, number, moments):
            sys.stdout.write("missed\n")
    await assert_nothing_is_left(raft)
