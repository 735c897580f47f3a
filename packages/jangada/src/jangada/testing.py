"""Fixtures and fakes for tests of every service. Production never imports this (a contract).

The servers are real: one embedded PostgreSQL and one Valkey per test process, unflushed to disk.
Each test that asks for `database` gets its own, copied from a migrated template, and commits for
real; nothing needs undoing and nothing leaks.
"""

import asyncio
import inspect
import logging
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import structlog
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.auth_settings import AuthSettings, HashSettings
from jangada.config import (
    DatabaseSettings,
    Environment,
    MailSettings,
    Settings,
    StorageSettings,
    ValkeySettings,
)
from jangada.db import Database, new_id
from jangada.jobs.models import Job, is_waiting
from jangada.jobs.schemas import JobArgs
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey
from jangada.migrations import run
from jangada.runtime import Clock, Runtime, open_runtime
from jangada.tenants.models import Tenant, User
from jangada.tenants.service import create_personal_tenant

if TYPE_CHECKING:
    from aiosmtpd.smtp import SMTP, Envelope, Session

TEMPLATE = "template_jangada"
MASTER_KEY = "a master key for tests only, 32 bytes or more"
PATIENCE = 60.0
"""Seconds to wait for what takes a moment on an idle machine."""
PAUSES = (0.01, 0.1)
"""Seconds between two questions: the first, and what it grows to, for a question costs, too."""


async def eventually(condition: Callable[[], Any]) -> Any:  # noqa: ANN401 - the condition's own
    """Ask again until the answer is true, and answer it; what is waited for runs between questions.

    The condition may be a coroutine function. Raises `TimeoutError` after a minute.
    """
    pause, longest = PAUSES
    async with asyncio.timeout(PATIENCE):
        while not (found := await _answered(condition())):
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, longest)
    return found


async def eventually_not(condition: Callable[[], Any]) -> None:
    """Ask again until the answer is false."""

    async def is_false() -> bool:
        return not await _answered(condition())

    await eventually(is_false)


async def _answered(answer: Any) -> Any:  # noqa: ANN401 - as above
    return await answer if inspect.isawaitable(answer) else answer


@dataclass(slots=True)
class FrozenClock:
    """A clock that moves only when told to."""

    present: datetime = field(default_factory=lambda: datetime(2026, 3, 1, 12, tzinfo=UTC))

    def now(self) -> datetime:
        return self.present

    def advance(self, by: timedelta) -> None:
        self.present += by


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `JANGADA_…` variable of the person who runs the tests reaches them."""
    for key in [key for key in os.environ if key.startswith("JANGADA_")]:
        monkeypatch.delenv(key)


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """Tracebacks without colours and locals, of which rich makes one in 0.2 s; no debugging."""
    plain = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(
        processors=[*structlog.get_config()["processors"][:-1], plain],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """A folder with a short path: sockets allow 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="jg-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(servers_folder: Path) -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL per test process, with a migrated template database."""
    folder = servers_folder / "postgres"
    with EmbeddedPostgres(folder, durable=False) as server, server.administered():
        server.create_database(TEMPLATE)
        run.upgrade(DatabaseSettings(url=SecretStr(server.database_url(TEMPLATE))))
        yield server


@pytest.fixture(scope="session")
def valkey_server(servers_folder: Path) -> Iterator[EmbeddedValkey]:
    """One Valkey per test process; a test that stops a server starts one of its own."""
    with EmbeddedValkey(servers_folder / "valkey", durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_client(valkey_server: EmbeddedValkey) -> Iterator[Redis]:
    """A connection that stays: to empty the server costs a test one command."""
    with Redis.from_url(valkey_server.url) as client:
        yield client


@pytest.fixture
def valkey_url(valkey_server: EmbeddedValkey, valkey_client: Redis) -> str:
    """An empty Valkey."""
    valkey_client.flushall()
    return valkey_server.url


@pytest.fixture
def database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a database of this test's own, migrated."""
    name = f"test_{new_id().hex}"
    postgres.create_database(name, template=TEMPLATE)
    yield postgres.database_url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def shared_settings() -> Settings:
    """What the settings of all tests have in common, with a cheap password hash."""
    return Settings(
        environment=Environment.DEVELOPMENT,
        auth=AuthSettings(
            master_key=SecretStr(MASTER_KEY), hash=HashSettings(memory_kib=8192, time_cost=1)
        ),
    )


@pytest.fixture
def settings(
    shared_settings: Settings, database_url: str, valkey_url: str, tmp_path: Path
) -> Settings:
    """Settings for this test's own database, an empty Valkey and files of its own."""
    # How fast a busy machine is isn't the question, but where a test says so itself.
    database = DatabaseSettings(url=SecretStr(database_url), pool_timeout=timedelta(minutes=1))
    own = {
        "database": database,
        "valkey": ValkeySettings(url=SecretStr(valkey_url)),
        "storage": StorageSettings(url=f"file://{tmp_path / 'files'}"),
    }
    return shared_settings.model_copy(update=own)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """A runtime on this test's own database, with the system's clock."""
    async with open_runtime(settings) as opened:
        yield opened


@pytest.fixture
async def database(runtime: Runtime) -> Database:
    """The runtime's database: what is committed in it is really committed."""
    return runtime.database


@asynccontextmanager
async def frozen_runtime(settings: Settings, clock: Clock) -> AsyncIterator[Runtime]:
    """A runtime whose "now" is the test's."""
    async with open_runtime(settings, clock=clock) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Person:
    """A user with a personal tenant."""

    user: User
    tenant: Tenant

    @property
    def tenant_id(self) -> UUID:
        return self.tenant.id


async def make_person(database: Database, name: str = "Ana") -> Person:
    """A user who cannot sign in (no password), with a personal tenant."""
    async with database.system_transaction("test data") as session:
        email = f"{name.lower()}-{new_id().hex[-12:]}@example.com"
        user = User(id=new_id(), email=email, email_key=email, name=name)
        session.add(user)
        await session.flush()
        tenant = await create_personal_tenant(session, user)
    return Person(user, tenant)


@pytest.fixture
async def person(database: Database) -> Person:
    return await make_person(database)


@pytest.fixture
async def tenant(person: Person) -> Tenant:
    return person.tenant


@pytest.fixture
async def session(database: Database, tenant: Tenant) -> AsyncIterator[AsyncSession]:
    """A session in the tenant's scope, committed at the end of the test."""
    async with database.transaction(tenant.id) as opened:
        yield opened


async def enqueued(
    session: AsyncSession,
    kind: type[JobArgs],
    **args: Any,  # noqa: ANN401 - of many types
) -> list[Job]:
    """The waiting jobs of a kind whose arguments are these, whatever the others are; oldest first.

    Also what the session's own transaction has enqueued and not committed yet.
    """
    waiting = select(Job).where(Job.kind == kind.kind, is_waiting()).order_by(Job.id)
    return [job for job in await session.scalars(waiting) if _has(kind, job, args)]


def _has(kind: type[JobArgs], job: Job, args: dict[str, Any]) -> bool:
    stored = kind.model_validate(job.args)
    return all(getattr(stored, name) == value for name, value in args.items())


async def assert_enqueued(
    session: AsyncSession,
    kind: type[JobArgs],
    **args: Any,  # noqa: ANN401 - of many types
) -> Job:
    """The one waiting job of this kind with these arguments; the test fails for none or several."""
    found = await enqueued(session, kind, **args)
    if len(found) != 1:
        others = [job.args for job in await enqueued(session, kind)]
        pytest.fail(f"{len(found)} jobs {kind.kind} with {args} are enqueued, of these: {others}")
    return found[0]


async def refute_enqueued(
    session: AsyncSession,
    kind: type[JobArgs],
    **args: Any,  # noqa: ANN401 - of many types
) -> None:
    """The test fails where a job of this kind with these arguments waits."""
    if found := [job.args for job in await enqueued(session, kind, **args)]:
        pytest.fail(f"jobs {kind.kind} are enqueued: {found}")


@dataclass(slots=True)
class MailServer:
    """A real SMTP server, in the event loop of the test, and what it took.

    `replies` are what it answers to `MAIL`, `RCPT` and `DATA` instead of agreeing, in turn.
    """

    replies: dict[str, list[str]] = field(default_factory=dict)
    envelopes: list["Envelope"] = field(default_factory=list)
    sessions: list["Session"] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def settings(self) -> MailSettings:
        """What sends to it, unencrypted."""
        return MailSettings(url=SecretStr(self.url), starttls="off")

    @property
    def mails(self) -> list[EmailMessage]:
        return [
            message_from_bytes(envelope.original_content or b"", policy=policy.default)
            for envelope in self.envelopes
        ]

    def reply(self, command: str) -> str:
        replies = self.replies.get(command)
        return replies.pop(0) if replies else "250 OK"

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self,
        _: "SMTP",
        __: "Session",
        envelope: "Envelope",
        address: str,
        options: list[str],
    ) -> str:
        envelope.mail_from, envelope.mail_options = address, options
        return self.reply("MAIL")

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self,
        _: "SMTP",
        __: "Session",
        envelope: "Envelope",
        address: str,
        ___: list[str],
    ) -> str:
        envelope.rcpt_tos.append(address)
        return self.reply("RCPT")

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _: "SMTP", session: "Session", envelope: "Envelope"
    ) -> str:
        reply = self.reply("DATA")
        if reply.startswith("2"):
            self.envelopes.append(envelope)
            self.sessions.append(session)
        return reply


@asynccontextmanager
async def open_mail_server(
    server: MailServer | None = None,
    *,
    tls_from_the_start: ssl.SSLContext | None = None,
    **options: Any,  # noqa: ANN401 - aiosmtpd's
) -> AsyncIterator[MailServer]:
    """A mail server on a free port; the options are those of `aiosmtpd.smtp.SMTP`."""
    from aiosmtpd.smtp import SMTP  # noqa: PLC0415 - only tests that send mail pay for it

    logging.getLogger("mail.log").disabled = True  # it says whom mail is for, which is its right
    server = server or MailServer()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: SMTP(server, hostname="mail.test", loop=loop, **options),
        "127.0.0.1",
        0,
        ssl=tls_from_the_start,
    )
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        listening.close_clients()
        await listening.wait_closed()


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    """A mail server that takes everything, unencrypted."""
    async with open_mail_server() as server:
        yield server
