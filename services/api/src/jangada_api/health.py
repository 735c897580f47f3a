"""Whether this process can do its work: what probes ask, and what the answer names.

Guarantees: an answer within 2.5 s whatever hangs; checks never pile up, because all who ask while
one is under way wait for that one; no load on the pool can starve them, because PostgreSQL is asked
on a connection of their own, over the URL that requests use. A server that vanished without a word
costs one answer: its connection is hung up, and the next is asked on a new one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import psycopg
from psycopg import errors as pg

from jangada.config import DatabaseSettings
from jangada.connections import Connection, arguments
from jangada.migrations.revisions import head
from jangada.runtime import Runtime
from jangada.telemetry import describe
from jangada_queue.errors import QueueUnavailable
from jangada_queue.server import check_writable

DEADLINE_SECONDS: Final = 2.0
POSTGRESQL: Final = "postgresql"
VALKEY: Final = "valkey"
APPLICATION_NAME: Final = "jangada-api-health"
_QUERY: Final = (
    "SELECT (SELECT max(version_num) FROM alembic_version), rolsuper OR rolbypassrls"
    " FROM pg_roles WHERE rolname = current_user"
)


class Check:
    """One question that is asked at most once at a time."""

    def __init__(self, ask: Callable[[], Awaitable[str | None]]) -> None:
        self._ask = ask
        self._asked: asyncio.Task[str | None] | None = None

    async def fault(self) -> str | None:
        """What is wrong, or None. A question that hangs is not asked again until it ends."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.ensure_future(self._answer())
        await asyncio.wait({self._asked}, timeout=DEADLINE_SECONDS)
        if not self._asked.done():
            return f"no answer within {DEADLINE_SECONDS:g} s"
        return self._asked.result()

    async def _answer(self) -> str | None:
        try:
            return await self._ask()
        except Exception as error:  # noqa: BLE001 - whatever fails is what the probe wants to know
            return describe(error)

    async def close(self) -> None:
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.wait({self._asked}, timeout=DEADLINE_SECONDS)


class Postgresql:
    """Asks PostgreSQL for the schema and the role, on a connection that it keeps."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._connection: Connection | None = None
        self._needed = head()

    async def __call__(self) -> str | None:
        try:
            return await self._fault()
        except psycopg.OperationalError:
            # The connection may have died unseen, with the server it belonged to, or hung.
            await self.close()
            return await self._fault()

    async def _fault(self) -> str | None:
        if self._connection is None:
            self._connection = await self._connect()
        try:
            cursor = await self._connection.execute(_QUERY)
        except pg.UndefinedTable:
            return "the schema is missing: run `jangada migrate`"
        row = await cursor.fetchone()
        revision, is_unsafe = row or (None, False)
        if is_unsafe:
            return "the role bypasses row-level security: use one that does not"
        if revision is None or revision < self._needed:
            return f"the schema is at {revision}, {self._needed} is needed: run `jangada migrate`"
        return None

    async def _connect(self) -> Connection:
        connection = await Connection.connect(
            **arguments(self._settings, self._settings.url, APPLICATION_NAME),
            autocommit=True,
            prepare_threshold=None,
        )
        connection.deadline = timedelta(seconds=DEADLINE_SECONDS)
        return connection

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


@dataclass(frozen=True, slots=True)
class Readiness:
    """The answer to a readiness probe: what is wrong (not ready), and what is merely degraded."""

    faults: dict[str, str]
    degraded: dict[str, str]

    @property
    def is_ready(self) -> bool:
        return not self.faults


@dataclass(slots=True)
class Health:
    """What the management port answers from."""

    postgresql: Check
    valkey: Check
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def readiness(self) -> Readiness:
        if self.stopping.is_set():
            return Readiness({"process": "it is shutting down"}, {})
        postgresql, valkey = await asyncio.gather(self.postgresql.fault(), self.valkey.fault())
        faults = {} if postgresql is None else {POSTGRESQL: postgresql}
        return Readiness(faults, {} if valkey is None else {VALKEY: valkey})


@asynccontextmanager
async def open_health(runtime: Runtime) -> AsyncIterator[Health]:
    """Health checks on the runtime; nothing needs to be up."""
    postgresql = Postgresql(runtime.settings.database)

    async def valkey() -> str | None:
        try:
            await check_writable(runtime.queue)
        except QueueUnavailable as error:
            return str(error)
        return None

    health = Health(Check(postgresql), Check(valkey))
    try:
        yield health
    finally:
        await health.postgresql.close()
        await health.valkey.close()
        await postgresql.close()
