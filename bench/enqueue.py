"""How fast jobs are enqueued in batches, beside psycopg's `copy.write_row` of the same rows.

Ours is `enqueue_many` in the tenant's session: arguments are checked and written as JSON, ids are
made, one statement inserts the batch, the transaction commits. The other side has all of that in
memory as text before its clock starts, and copies it into a table that is `jobs` without policies:
same columns, defaults, checks, indexes and foreign key. Both work on one PostgreSQL with its
defaults (durable), on tables that were empty before, and take turns batch by batch.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg
from figures import Figure, Promise, report
from psycopg.rows import TupleRow
from pydantic import SecretStr

from jangada.config import DatabaseSettings
from jangada.db import Database, new_id
from jangada.jobs import service
from jangada.jobs.schemas import JobArgs
from jangada.local.postgres import EmbeddedPostgres
from jangada.migrations import run as migrations

HERE = Path(__file__).parent
FLOOR = 0.50
BATCH, BATCHES = 5_000, 10

CREATE = """
    CREATE TABLE bare_jobs
        (LIKE jobs INCLUDING ALL,
        FOREIGN KEY (tenant_id) REFERENCES tenants ON DELETE CASCADE)
"""
COLUMNS = ("tenant_id", "id", "kind", "queue", "state", "args", "max_attempts", "scheduled_at")
COPY = f"COPY bare_jobs ({', '.join(COLUMNS)}) FROM STDIN"
NEW_TENANT = "INSERT INTO tenants (id, name, kind) VALUES (%s, 'Bench', 'personal')"
EMPTY = "TRUNCATE jobs, bare_jobs, contact_imports, import_rejects"
CONTENT = "SELECT count(*), min(length(args::text)) FROM {}"

type Row = tuple[str, ...]
type Connection = psycopg.Connection[TupleRow]


class Welcome(JobArgs):
    """What such a job usually carries."""

    kind: ClassVar[str] = "bench.welcome"
    queue: ClassVar[str] = "mail"

    user_id: UUID
    template: str = "welcome"
    locale: str = "pt-BR"


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    batch: int
    batches: int
    runs: int

    @classmethod
    def parsed(cls) -> Self:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--batch", type=int, default=BATCH)
        parser.add_argument("--batches", type=int, default=BATCHES)
        parser.add_argument("--runs", type=int, default=5)
        given = parser.parse_args()
        return cls(given.batch, given.batches, given.runs)

    @property
    def jobs(self) -> int:
        return self.batch * self.batches


@dataclass(frozen=True, slots=True)
class Server:
    """PostgreSQL with a tenant and both tables."""

    url: str
    admin_url: str
    tenant_id: UUID

    @classmethod
    def prepared(cls, postgres: EmbeddedPostgres) -> Self:
        application, admin = urlsplit(postgres.url), urlsplit(postgres.admin_url)
        server = cls(postgres.url, urlunsplit(admin._replace(path=application.path)), new_id())
        migrations.upgrade(DatabaseSettings(url=SecretStr(server.url)))
        with psycopg.connect(server.url) as connection:
            connection.execute(CREATE)
        with psycopg.connect(server.admin_url) as connection:
            connection.execute(NEW_TENANT, [server.tenant_id])
        return server

    def empty(self) -> None:
        """Both tables empty, and nothing left to flush of what was in them."""
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(EMPTY)
            connection.execute("CHECKPOINT")

    def check(self, table: str, jobs: int) -> None:
        with psycopg.connect(self.admin_url) as connection:
            found = connection.execute(CONTENT.format(table).encode()).fetchone()
        if found is None or found[0] != jobs or not found[1]:
            raise SystemExit(f"{table} holds {found} instead of {jobs} jobs.")

    def version(self) -> str:
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT current_setting('server_version')").fetchone()
        return str(row[0]) if row else "?"


async def enqueue(database: Database, tenant_id: UUID, batch: list[JobArgs]) -> float:
    """Seconds from the begin of the transaction to the end of its commit."""
    began = time.perf_counter()
    async with database.transaction(tenant_id) as session:
        await service.enqueue_many(session, batch, tenant_id=tenant_id)
    return time.perf_counter() - began


def copy(connection: Connection, batch: list[Row]) -> float:
    """As `enqueue`."""
    began = time.perf_counter()
    with connection.transaction(), connection.cursor().copy(COPY.encode()) as copied:
        for row in batch:
            copied.write_row(row)
    return time.perf_counter() - began


def rows(tenant_id: UUID, batch: Sequence[JobArgs]) -> list[Row]:
    tenant, now = str(tenant_id), datetime.now(UTC).isoformat()
    return [
        (
            *(tenant, str(new_id()), args.kind, args.queue, "available"),
            *(args.model_dump_json(), str(args.max_attempts), now),
        )
        for args in batch
    ]


async def compare(database: Database, server: Server, options: Options) -> tuple[float, float]:
    """Jobs per second, ours and theirs."""
    server.empty()
    ours, theirs = 0.0, 0.0
    with psycopg.connect(server.url, autocommit=True) as connection:
        for _ in range(options.batches):
            batch: list[JobArgs] = [Welcome(user_id=new_id()) for _ in range(options.batch)]
            theirs += copy(connection, rows(server.tenant_id, batch))
            ours += await enqueue(database, server.tenant_id, batch)
    for table in ("jobs", "bare_jobs"):
        server.check(table, options.jobs)
    return options.jobs / ours, options.jobs / theirs


async def measure(server: Server, options: Options) -> int:
    database = Database(DatabaseSettings(url=SecretStr(server.url)))
    await compare(database, server, options)  # warms up
    runs = [await compare(database, server, options) for _ in range(options.runs)]
    ours, bare = zip(*runs, strict=True)
    await database.close()
    title = (
        f"{options.batches} batches of {options.batch:,} jobs into an empty table, median of "
        f"{options.runs}; PostgreSQL {server.version()}"
    )
    promise = Promise(
        Figure("enqueue_many", "jobs/s", ours),
        Figure("copy.write_row", "jobs/s", bare),
        FLOOR,
    )
    return report(title, [promise])


def main() -> int:
    options = Options.parsed()
    # A bench that is ended from outside still ends its server and removes its files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Beside the sources and not under /tmp, which may be memory: flushing must reach a disk.
    with (
        tempfile.TemporaryDirectory(prefix=".bench-", dir=HERE.parent) as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as postgres,
    ):
        return asyncio.run(measure(Server.prepared(postgres), options))


if __name__ == "__main__":
    sys.exit(main())
