"""A raft: the real programs as processes of their own, on this test's PostgreSQL and Valkey."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from uuid import UUID

import psutil
import pytest
from chaos.forkserver import Forked, ForkServer
from prometheus_client import CollectorRegistry
from pydantic import ConfigDict, SecretStr
from sqlalchemy import CursorResult, text

from jangada.auth_settings import AuthSettings
from jangada.config import (
    DatabaseSettings,
    Environment,
    Settings,
    ValkeySettings,
)
from jangada.db import new_id, utc_now
from jangada.jobs import registry, service
from jangada.jobs.delivery.grant import GrantedJob, grant
from jangada.jobs.delivery.tickets import Ticket
from jangada.jobs.delivery.workers import NewWorker, register
from jangada.jobs.models import FINAL_STATES, Job
from jangada.jobs.schemas import JobArgs
from jangada.jobs_settings import JobsSettings
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.process import Child, Command
from jangada.local.valkey import EmbeddedValkey
from jangada.runtime import Runtime, open_runtime
from jangada.testing import MASTER_KEY, TEMPLATE, Person, eventually, make_person
from jangada_queue.patience import Stop
from jangada_worker.dispatcher import Dispatcher

PATIENCE = 60.0

QUICK = JobsSettings(
    beat_interval=timedelta(milliseconds=200),
    worker_timeout=timedelta(seconds=1),
    sweep_interval=timedelta(milliseconds=250),
    message_lease=timedelta(seconds=1),
    idle_poll=timedelta(milliseconds=200),
    window_ahead=timedelta(milliseconds=1),
)

UNHURRIED = QUICK.model_copy(
    update={"worker_timeout": timedelta(seconds=6), "message_lease": timedelta(seconds=10)}
)
"""For tests in which no worker is to be taken for dead, on a slow machine either."""

TABLES = """
    CREATE TABLE signs (job uuid, attempt integer, pid integer, what text);
    CREATE TABLE effects (job uuid, attempt integer);
    CREATE TABLE gates (name text);
    CREATE TABLE spans (tenant uuid, job uuid, attempt integer, pid integer, key text,
        began timestamptz, ended timestamptz);
"""


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The jobs of `rehearsal.py` as an installed application."""
    folder = tmp_path_factory.mktemp("application")
    shutil.copy(Path(__file__).with_name("rehearsal.py"), folder / "jangada_rehearsal.py")
    metadata = folder / "jangada_rehearsal-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: jangada-rehearsal\nVersion: 1\n"
    )
    (metadata / "entry_points.txt").write_text("[jangada.handlers]\ntest = jangada_rehearsal\n")
    return folder


@pytest.fixture(scope="session")
def rehearsal() -> ModuleType:
    """The same jobs, known in this process too."""
    spec = spec_from_file_location("jangada_rehearsal", Path(__file__).with_name("rehearsal.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """As all tests have them, with leases of a second, but where nobody is to lose one."""
    is_unhurried = request.node.get_closest_marker("unhurried") is not None
    return settings.model_copy(update={"jobs": UNHURRIED if is_unhurried else QUICK})


def environment(settings: Settings, application: Path, **more: object) -> dict[str, str]:
    jobs = settings.jobs
    master_key = settings.auth.master_key
    assert master_key is not None
    ours = {
        "ENVIRONMENT": settings.environment,
        "DATABASE__URL": settings.database.url.get_secret_value(),
        "VALKEY__URL": settings.valkey.url.get_secret_value(),
        "AUTH__MASTER_KEY": master_key.get_secret_value(),
        "TELEMETRY__LOG_FORMAT": "json",
        "WORKER__QUEUES": "default,imports",
        "WORKER__DRAIN_TIMEOUT": "30s",
        **{
            f"JOBS__{name.upper()}": f"{getattr(jobs, name).total_seconds()}s"
            for name in JobsSettings.model_fields
            if isinstance(getattr(jobs, name), timedelta)
        },
        **{key.upper(): value for key, value in more.items()},
    }
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("JANGADA_")},
        **{f"JANGADA_{key}": str(value) for key, value in ours.items()},
        "PYTHONPATH": str(application),
    }


@dataclass(slots=True)
class Program:
    """A running `jangada worker` or `jangada dispatcher`."""

    child: Child | Forked
    management_url: str
    log: Path

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def children(self) -> list[psutil.Process]:
        """Those that run jobs, not the process that forked them."""
        return [child for server in self.servers for child in server.children()]

    @property
    def servers(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    @property
    def family(self) -> list[int]:
        return [self.pid, *(each.pid for each in (*self.servers, *self.children))]

    def signal_family(self, number: signal.Signals) -> None:
        for pid in self.family:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def send(self, number: signal.Signals) -> None:
        self.child.send(number)

    async def ended(self) -> int:
        return await asyncio.wait_for(asyncio.wrap_future(self.child.ended), PATIENCE)

    async def stop(self) -> int:
        self.send(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """As a node that loses power: parent and children at once."""
        self.signal_family(signal.SIGKILL)
        await self.ended()


def limits_of(kind: str) -> dict[str, Any]:
    """What the kind's own arguments declare, where they are known in this process."""
    if (known := registry.find(kind)) is None:
        return {}
    return {"rate_limit": known.args.rate_limit, "concurrency": known.args.concurrency}


class AnyArgs(JobArgs):
    model_config = ConfigDict(frozen=True, extra="allow")


def args_of(kind: str) -> type[JobArgs]:
    """A class of arguments for the kind, whoever declares it."""
    declared = {"kind": kind, "__annotations__": {"kind": ClassVar[str]}, **limits_of(kind)}
    return type("Args", (AnyArgs,), declared)


@dataclass(slots=True)
class Raft:
    """The platform around a test."""

    runtime: Runtime
    person: Person
    settings: Settings
    application: Path
    folder: Path
    forks: ForkServer
    programs: list[Program] = field(default_factory=list)
    stop: Stop = field(default_factory=Stop)
    dispatching: asyncio.Task[None] | None = None

    async def worker(self, *, knows_application: bool = True, **settings: object) -> Program:
        more = {f"worker__{key}": value for key, value in settings.items()}
        return await self.start("worker", knows_application=knows_application, **more)

    async def dispatcher(self) -> None:
        """One in this process: nothing that it does needs one of its own, but to be killed."""
        dispatcher = Dispatcher(self.runtime, CollectorRegistry(), self.stop)
        self.dispatching = asyncio.create_task(dispatcher.run())

    async def dispatcher_process(self) -> Program:
        return await self.start("dispatcher")

    async def start(
        self, command: str, *, knows_application: bool = True, **settings: object
    ) -> Program:
        """Start a program and wait until it says that it is ready."""
        reading, writing = os.pipe()
        log = self.folder / f"{command}-{len(self.programs)}.log"
        application = self.application if knows_application else self.folder
        how = Command(
            argv=[sys.executable, "-m", "jangada", command],
            environ={
                **environment(self.settings, application, **settings),
                "JANGADA_READY_FD": str(writing),
            },
            death_signal=signal.SIGKILL,
        )
        with log.open("wb") as output:
            child = self.forks.start(how, output.fileno(), [writing])
        os.close(writing)
        program = Program(child, "", log)
        self.programs.append(program)
        loop = asyncio.get_running_loop()
        with os.fdopen(reading) as pipe:
            line = await asyncio.wait_for(loop.run_in_executor(None, pipe.readline), PATIENCE)
        assert line, log.read_text()
        program.management_url = json.loads(line)["management_url"]
        return program

    def environment(self) -> dict[str, str]:
        return environment(self.settings, self.application)

    async def close(self) -> None:
        self.stop.ask()
        if self.dispatching is not None:
            await self.dispatching
        for program in self.programs:
            if program.child.is_running:
                with suppress(psutil.NoSuchProcess, ProcessLookupError):
                    program.signal_family(signal.SIGKILL)
                await program.ended()

    async def enqueue(self, kind: str, *, tenant: UUID | None = None, **args: Any) -> Job:  # noqa: ANN401 - as jobs take them
        how = {
            name: args.pop(name)
            for name in ("queue", "max_attempts", "scheduled_at", "concurrency_key", "priority")
            if name in args
        }
        tenant = tenant or self.person.tenant_id
        async with self.runtime.database.transaction(tenant) as session:
            job = args_of(kind)(**args)
            return await service.enqueue(session, job, tenant_id=tenant, **how)

    async def enqueue_together(self, *kinds: str) -> None:
        """In one transaction: which of them start is the dispatcher's to choose."""
        tenant = self.person.tenant_id
        jobs = [args_of(kind)() for kind in kinds]
        async with self.runtime.database.transaction(tenant) as session:
            await service.enqueue_many(session, jobs, tenant_id=tenant)

    async def register(self) -> UUID:
        """A worker that PostgreSQL believes in, for as long as nobody sweeps."""
        worker = NewWorker(new_id(), "pod", "host", 1, "0", ["default"], 4)
        async with self.runtime.database.direct() as connection:
            await register(connection, worker)
        return worker.id

    async def start_here(self, kind: str, **args: Any) -> GrantedJob:  # noqa: ANN401 - as jobs take them
        """A granted start of a new job, for this process to run."""
        job = await self.enqueue(kind, **args)
        ticket = Ticket(job.tenant_id, job.id, 0, kind)
        worker = await self.register()
        async with self.runtime.database.direct() as connection:
            (granted,) = await grant(connection, worker, [ticket])
        return granted

    async def row(self, granted: GrantedJob) -> Job:
        async with self.runtime.database.read(granted.tenant_id) as session:
            return await service.get_job(session, granted.tenant_id, granted.job_id)

    async def reload(self, job: Job) -> Job:
        async with self.runtime.database.read(job.tenant_id) as session:
            return await service.get_job(session, job.tenant_id, job.id)

    async def cancel(self, job: Job) -> None:
        async with self.runtime.database.transaction(job.tenant_id) as session:
            await service.cancel(session, job.tenant_id, job.id)

    async def open_gate(self, name: str) -> None:
        await self.execute("INSERT INTO gates VALUES (:name)", name=name)

    async def execute(self, statement: str, **values: object) -> list[Any]:
        async with self.runtime.database.system_transaction("test") as session:
            result = await session.execute(text(statement), values)
            has_rows = isinstance(result, CursorResult) and result.returns_rows
            return list(result.all()) if has_rows else []

    async def signs(self, job: Job, what: str = "started") -> list[tuple[int, int]]:
        """The (attempt, pid) of each sign of the job."""
        rows = await self.execute(
            "SELECT attempt, pid FROM signs WHERE job = :job AND what = :what ORDER BY attempt",
            job=job.id,
            what=what,
        )
        return [tuple(row) for row in rows]

    async def effects(self, job: Job) -> list[int]:
        """The attempts whose effects were committed."""
        found = await self.execute("SELECT attempt FROM effects WHERE job = :job", job=job.id)
        return [row[0] for row in found]

    async def until_idle_for(self, wait: timedelta) -> None:
        """Return when PostgreSQL's clock says so: a job that is due then has run."""
        ripe = await self.enqueue("ping", scheduled_at=utc_now() + wait)
        await self.until_state(ripe, "completed")

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - its own
        """Wait until the condition answers something true, and answer it."""
        return await eventually(condition)

    async def until_started(self, job: Job, times: int = 1) -> list[tuple[int, int]]:
        async def started() -> list[tuple[int, int]]:
            signs = await self.signs(job)
            return signs if len(signs) >= times else []

        found: list[tuple[int, int]] = await self.until(started)
        return found

    async def until_crashed(self, job: Job, times: int) -> None:
        async def crashed() -> bool:
            return (await self.reload(job)).crashes >= times

        await self.until(crashed)

    async def until_state(self, job: Job, *states: str) -> Job:
        async def reached() -> Job | None:
            row = await self.reload(job)
            return row if row.state in (states or FINAL_STATES) else None

        found: Job = await self.until(reached)
        return found


@asynccontextmanager
async def afloat(
    runtime: Runtime, person: Person, application: Path, folder: Path, *, forks: ForkServer
) -> AsyncIterator[Raft]:
    async with runtime.database.direct() as connection:
        await connection.execute(TABLES)
    raft = Raft(runtime, person, runtime.settings, application, folder, forks)
    try:
        yield raft
    finally:
        await raft.close()
        for program in raft.programs:
            sys.stdout.write(f"--- {program.log.name}\n{program.log.read_text()}\n")


@pytest.fixture
async def raft(
    runtime: Runtime, person: Person, application: Path, tmp_path: Path, *, forks: ForkServer
) -> AsyncIterator[Raft]:
    """A database, a Valkey and programs of one test's own."""
    async with afloat(runtime, person, application, tmp_path, forks=forks) as raft:
        yield raft


@pytest.fixture(scope="module")
async def fleet(
    postgres: EmbeddedPostgres,
    servers_folder: Path,
    application: Path,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    forks: ForkServer,
) -> AsyncIterator[Raft]:
    """A dispatcher and a worker for all tests of a module: programs take seconds to start."""
    name = f"fleet_{new_id().hex}"
    postgres.create_database(name, template=TEMPLATE)
    with EmbeddedValkey(servers_folder / name[-8:], durable=False) as valkey:
        settings = Settings(
            environment=Environment.DEVELOPMENT,
            database=DatabaseSettings(url=SecretStr(postgres.database_url(name))),
            valkey=ValkeySettings(url=SecretStr(valkey.url)),
            auth=AuthSettings(master_key=SecretStr(MASTER_KEY)),
            jobs=UNHURRIED,
        )
        async with open_runtime(settings) as runtime:
            person = await make_person(runtime.database)
            folder = tmp_path_factory.mktemp("fleet")
            async with afloat(runtime, person, application, folder, forks=forks) as raft:
                await raft.dispatcher()
                await raft.worker(slots=2)
                yield raft
    postgres.drop_database(name)


@pytest.fixture
def gate() -> str:
    """The name of a gate of this test."""
    return new_id().hex
