"""The platform around one storm: PostgreSQL, Valkey, real workers and dispatchers, all its own."""

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import UUID

import psycopg
import redis
from pydantic import SecretStr
from sqlalchemy import text

from chaos.columns import Pace
from chaos.forkserver import Launch, start
from chaos.handlers import FOLDER, Count, Effect
from chaos.harness import BENCH, STARTING, DidNotStartError, Program, until
from chaos.ledger import Counts, Ledger
from chaos.servers import Valkey
from jangada.auth_settings import AuthSettings
from jangada.config import DatabaseSettings, Environment, Settings, ValkeySettings
from jangada.db import new_id
from jangada.jobs.service import enqueue
from jangada.jobs_settings import JobsSettings
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.process import Command
from jangada.local.valkey import EmbeddedValkey
from jangada.migrations import run as migrations
from jangada.runtime import Runtime, open_runtime
from jangada.tenants.models import User
from jangada.tenants.service import create_personal_tenant

CONNECTIONS: Final = 400
TABLES: Final = (
    "CREATE TABLE effects (job uuid, attempt integer)",
    "CREATE TABLE trials (job uuid)",
)
_FLOOD: Final = """
    INSERT INTO jobs (tenant_id, id, kind, queue, state, args, max_attempts)
    SELECT :tenant, unnest(CAST(:ids AS uuid[])), :kind, :queue, 'available', '{}', 20
"""
AT_ONCE: Final = 5_000


def install_handlers(folder: Path) -> None:
    """The jobs of the bench as an installed application."""
    metadata = folder / "jangada_chaos-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: jangada-chaos\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[jangada.handlers]\nchaos = chaos.handlers\n")


def settings_of(pace: Pace, postgres: EmbeddedPostgres, valkey_url: str) -> Settings:
    return Settings(
        environment=Environment.DEVELOPMENT,
        database=DatabaseSettings(url=SecretStr(postgres.url)),
        valkey=ValkeySettings(url=SecretStr(valkey_url)),
        auth=AuthSettings(master_key=SecretStr(secrets.token_hex(32))),
        jobs=JobsSettings(
            beat_interval=timedelta(seconds=pace.renew_every),
            worker_timeout=timedelta(seconds=pace.lease),
            sweep_interval=timedelta(seconds=pace.sweep_every),
            message_lease=timedelta(seconds=pace.lease),
        ),
    )


@dataclass(slots=True)
class Raft:
    """Everything around one storm."""

    pace: Pace
    folder: Path
    postgres: EmbeddedPostgres
    valkey: Valkey
    runtime: Runtime
    tenant_id: UUID
    ledger: Ledger
    launch: Launch = start
    programs: list[Program] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        settings = self.runtime.settings
        jobs = settings.jobs
        master_key = settings.auth.master_key
        assert master_key is not None
        ours = {
            "ENVIRONMENT": settings.environment,
            "DATABASE__URL": settings.database.url.get_secret_value(),
            "VALKEY__URL": settings.valkey.url.get_secret_value(),
            "AUTH__MASTER_KEY": master_key.get_secret_value(),
            "TELEMETRY__LOG_FORMAT": "json",
            "JOBS__BEAT_INTERVAL": f"{jobs.beat_interval.total_seconds()}s",
            "JOBS__WORKER_TIMEOUT": f"{jobs.worker_timeout.total_seconds()}s",
            "JOBS__SWEEP_INTERVAL": f"{jobs.sweep_interval.total_seconds()}s",
            "JOBS__MESSAGE_LEASE": f"{jobs.message_lease.total_seconds()}s",
        }
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("JANGADA_")},
            **{f"JANGADA_{key}": str(value) for key, value in ours.items()},
            "PYTHONPATH": os.pathsep.join((str(self.folder), str(BENCH))),
            FOLDER: str(self.ledger.folder),
        }

    async def start(self, *arguments: str, **more: object) -> Program:
        """Start a program and wait until it says that it is ready."""
        reading, writing = os.pipe()
        log = self.folder / f"program-{len(self.programs)}.log"
        names = {f"JANGADA_{key.upper()}": str(value) for key, value in more.items()}
        command = Command(
            argv=[sys.executable, "-m", *arguments],
            environ={**self.environ, **names, "JANGADA_READY_FD": str(writing)},
            folder=self.folder,
            death_signal=signal.SIGKILL,
        )
        with log.open("wb") as output:
            child = self.launch(command, output.fileno(), [writing])
        os.close(writing)
        program = Program(child, log, self.ledger)
        self.programs.append(program)
        with os.fdopen(reading) as pipe:
            line = await asyncio.wait_for(asyncio.to_thread(pipe.readline), STARTING)
        if not line or not json.loads(line):
            raise DidNotStartError(program)
        return program

    async def worker(self, *, processes: int = 1, slots: int = 4) -> Program:
        return await self.start(
            *("jangada", "worker"),
            worker__processes=processes,
            worker__slots=slots,
            database__pool_size=max(2, min(slots, 10)),
        )

    async def dispatcher(self) -> Program:
        return await self.start("jangada", "dispatcher")

    async def send(self, *, scheduled_at: datetime | None = None, **how: Any) -> str:  # noqa: ANN401 - the arguments of `Effect`
        """Enqueue an effect; it counts once the transaction has returned."""
        job = new_id()
        self.ledger.write("perhaps", str(job))
        async with self.runtime.database.transaction(self.tenant_id) as session:
            await enqueue(
                *(session, Effect(**how)),
                tenant_id=self.tenant_id,
                id=job,
                scheduled_at=scheduled_at,
            )
        self.ledger.write("enqueued", str(job))
        return str(job)

    async def flood(self, count: int) -> None:
        """Enqueue so many jobs that do nothing, in few transactions."""
        ids = [new_id() for _ in range(count)]
        for begin in range(0, count, AT_ONCE):
            batch = ids[begin : begin + AT_ONCE]
            values = {
                "tenant": self.tenant_id,
                "ids": batch,
                "kind": Count.kind,
                "queue": Count.queue,
            }
            async with self.runtime.database.transaction(self.tenant_id) as session:
                await session.execute(text(_FLOOD), values)
        for job in ids:
            self.ledger.write("enqueued", str(job))

    async def execute(self, statement: str, **values: object) -> list[Any]:
        async with self.runtime.database.system_transaction("bench") as session:
            result = await session.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []  # type: ignore[attr-defined] # of a cursor

    async def effects(self) -> dict[str, int]:
        """How often each job's effect was committed."""
        rows = await self.execute("SELECT job, count(*) FROM effects GROUP BY job")
        return {str(job): count for job, count in rows}

    async def started(self, jobs: Sequence[str], times: int = 1, within: float = STARTING) -> bool:
        return await until(
            lambda: all(len(self.ledger.of("start", job)) >= times for job in jobs), within
        )

    async def done(self, within: float, *, wanted: set[str] | None = None) -> bool:
        """Wait until all that was enqueued has its effect."""
        wanted = self.ledger.jobs("enqueued") if wanted is None else wanted
        end = asyncio.get_running_loop().time() + within
        while asyncio.get_running_loop().time() < end:
            with suppress(Exception):  # PostgreSQL may be away: that is what some storms are about
                if wanted <= (await self.effects()).keys():
                    return True
            await asyncio.sleep(0.1)
        return False

    def open_gate(self, name: str) -> None:
        (self.ledger.folder / name).touch()

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.valkey.url, socket_timeout=STARTING)

    @contextmanager
    def superuser(self) -> Iterator[psycopg.Connection[Any]]:
        """On the raft's own database."""
        url = self.postgres.admin_url.replace("/postgres?", "/jangada?")
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            yield connection

    async def audit(self) -> Counts:
        """Count exactly: starts by the ledger, effects by what was committed."""
        counts, effects = self.ledger.audit(), await self.effects()
        enqueued = self.ledger.jobs("enqueued")
        committed = {str(row[0]) for row in await self.execute("SELECT id FROM jobs")}
        counts.lost = len(enqueued - effects.keys())
        counts.phantoms = len((self.ledger.jobs("start") | effects.keys()) - committed)
        counts.double_effects = sum(count - 1 for count in effects.values())
        counts.repeated = 0
        return counts

    async def close(self) -> None:
        for program in self.programs:
            if program.child.is_running:
                program.signal(signal.SIGCONT)
                await program.kill()


async def make_tenant(runtime: Runtime) -> UUID:
    async with runtime.database.system_transaction("bench") as session:
        user = User(id=new_id(), email="a@example.com", email_key="a@example.com", name="Ana")
        session.add(user)
        await session.flush()
        return (await create_personal_tenant(session, user)).id


@asynccontextmanager
async def raft(
    pace: Pace,
    valkey: type[Valkey] = EmbeddedValkey,
    postgres: type[EmbeddedPostgres] = EmbeddedPostgres,
    launch: Launch = start,
) -> AsyncIterator[Raft]:
    """A raft whose servers and processes are gone afterwards."""
    with TemporaryDirectory(prefix="jg-") as name:
        folder = Path(name)
        (folder / "ledger").mkdir()
        install_handlers(folder)
        with (
            postgres(folder / "postgres", max_connections=CONNECTIONS) as database,
            valkey(folder / "valkey") as started,
        ):
            migrations.upgrade(DatabaseSettings(url=SecretStr(database.url)))
            async with open_runtime(settings_of(pace, database, started.url)) as runtime:
                ledger = Ledger(folder / "ledger")
                tenant_id = await make_tenant(runtime)
                around = (pace, folder, database, started, runtime, tenant_id)
                made = Raft(*around, ledger, launch)
                for statement in TABLES:
                    await made.execute(statement)
                try:
                    yield made
                finally:
                    await made.close()
