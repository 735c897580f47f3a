"""How fast a contact file is imported, beside psycopg's `copy.write_row` of its validated rows.

The import is the real one: `jangada dispatcher` and `jangada worker` as processes of their own, the
file in the blob store, the clock running from the commit that enqueues the job until its completion
is seen. The other side has its rows validated and in memory, and writes them in one transaction
into a table with the same indexes, but without policies and foreign keys. Both count the contacts
that are there in the end, in tables that were empty before, on one PostgreSQL with its defaults
(durable), and take turns. The contents of both tables must be equal.
"""

import argparse
import asyncio
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import bare_copy
import psutil
import psycopg
from contact_files import ContactFile, write_contacts
from figures import Figure, Promise, report
from pydantic import SecretStr

from jangada.config import DatabaseSettings, load_settings
from jangada.contacts.schemas import ImportOptions
from jangada.contacts.service import start_import
from jangada.db import new_id
from jangada.files.blobs import MEBIBYTE
from jangada.files.schemas import Label
from jangada.files.uploads import receive
from jangada.jobs.models import FINAL_STATES, Job, JobState
from jangada.jobs.service import get_job
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey
from jangada.migrations import run as migrations
from jangada.runtime import Runtime, open_runtime

HERE = Path(__file__).parent
FLOOR, FLOOR_WITH_PHONES = 0.50, 0.30
MOST_MEMORY = 200 * MEBIBYTE
POLL = 0.02
ROWS, MEBIBYTES, WARM_UP_ROWS = 1_000_000, 1024, 20_000

NEW_TENANT = "INSERT INTO tenants (id, name, kind) VALUES (%s, 'Bench', 'personal')"
EMPTY = "TRUNCATE contacts, import_rejects, bare_contacts"
CONTENT = """
    SELECT count(*), sum(hashtextextended(
        concat_ws('|', email, coalesce(phone, '-'), name, name_key, company), 0)) FROM {}
"""


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    rows: int
    runs: int
    mebibytes: int

    @classmethod
    def parsed(cls) -> Self:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--rows", type=int, default=ROWS)
        parser.add_argument("--runs", type=int, default=5)
        parser.add_argument(
            "--mebibytes",
            type=int,
            help="size of the file for the worker's memory; 0 for none, as with fewer rows",
        )
        given = parser.parse_args()
        large = 0 if given.rows < ROWS else MEBIBYTES
        return cls(given.rows, given.runs, large if given.mebibytes is None else given.mebibytes)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A file on disk as it is uploaded."""

    path: Path
    label: Label = field(default=Label("contacts.csv", "text/csv"))

    @property
    def announced_bytes(self) -> int:
        return self.path.stat().st_size

    async def chunks(self) -> AsyncIterator[bytes]:
        with self.path.open("rb") as file:
            while chunk := file.read(MEBIBYTE):
                yield chunk


@dataclass(frozen=True, slots=True)
class Server:
    """PostgreSQL, and the database that both sides use."""

    url: str
    admin_url: str

    def prepare(self) -> None:
        migrations.upgrade(DatabaseSettings(url=SecretStr(self.url)))
        with psycopg.connect(self.url) as connection:
            connection.execute(bare_copy.CREATE)

    def new_tenant(self) -> UUID:
        tenant_id = new_id()
        with psycopg.connect(self.admin_url) as connection:
            connection.execute(NEW_TENANT, [tenant_id])
        return tenant_id

    def empty(self) -> None:
        """Both tables empty, and nothing left to flush of what was in them."""
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(EMPTY)
            connection.execute("CHECKPOINT")

    def content(self, table: str) -> tuple[Any, ...]:
        """How many contacts there are, and a checksum of them all."""
        with psycopg.connect(self.admin_url) as connection:
            row = connection.execute(CONTENT.format(table).encode()).fetchone()
        assert row is not None
        return row

    def version(self) -> str:
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT current_setting('server_version')").fetchone()
        return str(row[0]) if row else "?"


@dataclass(frozen=True, slots=True)
class Import:
    """One import: how long it took from enqueuing to completion, and what it said."""

    seconds: float
    result: dict[str, Any]

    def check(self, made: ContactFile) -> None:
        found = {name: self.result[name] for name in made.counts}
        if found != made.counts:
            raise SystemExit(f"The import counts {found} instead of {made.counts}.")


@contextmanager
def servers(folder: Path) -> Iterator[Server]:
    """PostgreSQL and Valkey of our own; by the environment, all programs find them."""
    files = folder / "files"
    files.mkdir(mode=0o700)
    with (
        EmbeddedPostgres(folder / "postgres") as postgres,
        EmbeddedValkey(folder / "valkey") as valkey,
    ):
        application, admin = urlsplit(postgres.url), urlsplit(postgres.admin_url)
        server = Server(postgres.url, urlunsplit(admin._replace(path=application.path)))
        server.prepare()
        os.environ |= {
            "JANGADA_DATABASE__URL": postgres.url,
            "JANGADA_VALKEY__URL": valkey.url,
            "JANGADA_AUTH__MASTER_KEY": secrets.token_hex(32),
            "JANGADA_STORAGE__URL": f"file://{files}",
            "JANGADA_STORAGE__MAX_UPLOAD_BYTES": str(1 << 40),
            "JANGADA_STORAGE__MAX_STORED_BYTES_PER_TENANT": str(1 << 50),
            "JANGADA_CONTACTS__MAX_LINES": str(1 << 40),
            "JANGADA_TELEMETRY__LOG_FORMAT": "json",
        }
        yield server


@contextmanager
def program(name: str) -> Iterator[psutil.Process]:
    """One of our programs as a child process, until SIGTERM."""
    child = Popen([sys.executable, "-m", "jangada", name], stdout=DEVNULL, stderr=DEVNULL)  # noqa: S603 - our own program
    try:
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(60)


def peak_memory(worker: psutil.Process) -> int:
    """The most memory that the process which runs the jobs has ever had, in bytes."""
    return max(map(_peak, worker.children(recursive=True)))


def _peak(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kibibytes) << 10


async def run_import(runtime: Runtime, server: Server, made: ContactFile) -> Import:
    """Upload the file into a new tenant and wait for its import; the upload isn't measured."""
    tenant_id = server.new_tenant()
    options = ImportOptions(default_region="BR")
    async with receive(runtime, tenant_id, Incoming(made.path)) as received:
        async with runtime.database.transaction(tenant_id) as session:
            job = await start_import(session, await received.finish(session), options)
        began = time.perf_counter()
    ended = await _ended(runtime, tenant_id, job.id)
    took = time.perf_counter() - began
    if ended.state is not JobState.COMPLETED or ended.result is None:
        raise SystemExit(f"The import is {ended.state}: {ended.errors}")
    return Import(took, ended.result)


async def _ended(runtime: Runtime, tenant_id: UUID, id: UUID) -> Job:
    while True:
        async with runtime.database.read(tenant_id) as session:
            job = await get_job(session, tenant_id, id)
        if job.state in FINAL_STATES:
            return job
        await asyncio.sleep(POLL)


async def compare(
    runtime: Runtime, server: Server, made: ContactFile, *, runs: int
) -> tuple[list[float], list[float]]:
    """Contacts per second, ours and theirs, with equal contents at the end of each run."""
    rows = bare_copy.validated(made.path)
    ours, bare = [], []
    for _ in range(runs):
        server.empty()
        bare.append(made.inserted / bare_copy.load(server.url, rows))
        theirs = server.content("bare_contacts")
        server.empty()
        done = await run_import(runtime, server, made)
        done.check(made)
        if server.content("contacts") != theirs or theirs[0] != made.inserted:
            raise SystemExit("Both sides don't hold the same contacts.")
        ours.append(made.inserted / done.seconds)
    return ours, bare


def promised(made: ContactFile, ours: list[float], bare: list[float]) -> Promise:
    what = "with phones" if made.has_phones else "without phones"
    return Promise(
        Figure(f"import, {what}", "contacts/s", tuple(ours)),
        Figure(f"copy.write_row, {what}", "contacts/s", tuple(bare)),
        FLOOR_WITH_PHONES if made.has_phones else FLOOR,
    )


async def measure(folder: Path, server: Server, worker: psutil.Process, options: Options) -> int:
    path = folder / "contacts.csv"
    promises = []
    async with open_runtime(load_settings()) as runtime:
        await compare(runtime, server, write_contacts(path, rows=WARM_UP_ROWS), runs=1)
        for has_phones in (False, True):
            made = write_contacts(path, rows=options.rows, has_phones=has_phones)
            promises.append(
                promised(made, *await compare(runtime, server, made, runs=options.runs))
            )
        code = report(_title(server, options), promises)
        code |= report_memory(f"{options.rows:,} rows", peak_memory(worker))
        if options.mebibytes:
            made = write_contacts(path, mebibytes=options.mebibytes)
            server.empty()
            done = await run_import(runtime, server, made)
            done.check(made)
            print(f"{options.mebibytes:,} MiB, {made.rows:,} rows: {done.seconds:,.0f} s")
            code |= report_memory(f"{options.mebibytes:,} MiB", peak_memory(worker))
    return code


def _title(server: Server, options: Options) -> str:
    return (
        f"Imports of {options.rows:,} rows into an empty tenant, median of {options.runs}; "
        f"PostgreSQL {server.version()}"
    )


def report_memory(what: str, peak: int) -> int:
    held = peak <= MOST_MEMORY
    print(
        f"Peak memory of the worker process after {what}: {peak / MEBIBYTE:.0f} MiB, "
        f"promised ≤ {MOST_MEMORY / MEBIBYTE:.0f} MiB: {'held' if held else 'NOT HELD'}"
    )
    return 0 if held else 1


def main() -> int:
    options = Options.parsed()
    # A bench that is ended from outside still ends its servers and removes its files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Beside the sources and not under /tmp, which may be memory: flushing must reach a disk.
    with (
        tempfile.TemporaryDirectory(prefix=".bench-", dir=HERE.parent) as folder,
        servers(Path(folder)) as server,
        program("dispatcher"),
        program("worker") as worker,
    ):
        return asyncio.run(measure(Path(folder), server, worker, options))


if __name__ == "__main__":
    sys.exit(main())
