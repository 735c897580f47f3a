"""The database: the base of all tables, and the only place that commits.

Guarantees
- One `async with database.transaction(tenant_id)` is one transaction: it commits when the block
  ends and rolls back when it raises. Nobody else commits (a test of the conventions says so).
- Tenancy holds in PostgreSQL: the tenant is set for the transaction only (`set_config(…, true)`),
  so that it survives neither the transaction nor a pooled connection. Without a tenant a session
  sees 0 rows of tenant tables.
- Work that belongs to no single tenant runs in `system_transaction(reason)` or, on a direct
  connection, in `system_scope(connection, reason)`, or in a session that does nothing else
  (`open_system_session`); a test lists the callers of all three. What touches no table of ours,
  such as a session's temporary ones, runs in `plain_scope(connection)`.
- A block that swallowed the error of a statement does not end quietly: PostgreSQL would answer its
  COMMIT by a rollback, so `TransactionAborted` is raised instead.
- After a commit the transaction's notices (a queue has work, a job is to be cancelled) are handed
  to the fast path once, within 50 ms; their loss changes nothing but speed.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, cast
from uuid import UUID

import psycopg
import uuid_utils.compat
from sqlalchemy import ARRAY, DateTime, Enum, ForeignKey, MetaData, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import QueuePool

from jangada.commits import Notify, Tally, take_notices, take_tallies
from jangada.config import DatabaseSettings
from jangada.connections import Connection, arguments
from jangada.db_errors import (
    UnsafeRole,
    is_lost_connection,
    of_a_missing_schema,
    of_a_standby,
    translate,
)
from jangada.postgres_errors import DatabaseUnavailable
from jangada.scopes import begin_in, refuse_ended
from jangada.telemetry import get_logger

log = get_logger(__name__)

NOTICE_DEADLINE: Final = timedelta(milliseconds=50)

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562). Its order helps the index and decides nothing else."""
    return uuid_utils.compat.uuid7()


def utc_now() -> datetime:
    return datetime.now(UTC)


def _values(members: type[StrEnum]) -> list[str]:
    return [member.value for member in members]


class Base(DeclarativeBase):
    """The base of every table. A `StrEnum` is stored as text and read as its member."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: DateTime(timezone=True),
        str: Text(),
        list[str]: ARRAY(Text()),
        StrEnum: Enum(StrEnum, native_enum=False, length=None, values_callable=_values),
        dict[str, Any]: JSONB(none_as_null=True),
        list[Any]: JSONB(none_as_null=True),
    }


class Entity(Base):
    """A row of a platform table: it belongs to no tenant."""

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_at: Mapped[datetime] = mapped_column(default=utc_now, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(
        default=utc_now, server_default=func.now(), onupdate=utc_now
    )


class TenantEntity(Base):
    """A row of a tenant table: its key, and every unique key of its table, begins with the tenant.

    Foreign keys between tenant tables are composite (`tenant_id`, …): PostgreSQL checks plain ones
    without row-level security, so they could point into another tenant unseen.
    """

    __abstract__ = True

    tenant_id: Mapped[UUID] = mapped_column(
        ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_at: Mapped[datetime] = mapped_column(default=utc_now, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(
        default=utc_now, server_default=func.now(), onupdate=utc_now
    )


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """Connections of one process's pool."""

    used: int
    idle: int
    maximum: int


_AS_IT_IS: Final = {"no_parameters": True}


class Database:
    """A bounded pool to PostgreSQL, and the transactions on it. Open one per process."""

    def __init__(self, settings: DatabaseSettings, *, application_name: str = "jangada") -> None:
        self.settings = settings
        self.application_name = application_name
        self.notify: Notify | None = None
        self.tally: Tally | None = None
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._connect,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=settings.pool_timeout.total_seconds(),
            hide_parameters=True,
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    async def close(self) -> None:
        await self.engine.dispose()

    def pool_usage(self) -> PoolUsage:
        """How many pooled connections are in use and idle, of how many at most."""
        pool = cast("QueuePool", self.engine.pool)
        return PoolUsage(
            used=pool.checkedout(), idle=pool.checkedin(), maximum=self.settings.pool_size
        )

    async def _connect(self) -> Connection:
        """A connection for the pool; it is hung up where even the statement timeout is not kept.

        Autocommit is on because we begin the transaction ourselves, together with its scope.
        """
        connection = await Connection.connect(
            **arguments(self.settings, self.settings.url, self.application_name),
            autocommit=True,
            prepare_threshold=None if self.settings.transaction_pooling else 5,
        )
        connection.deadline = self.settings.statement_timeout + self.settings.connect_timeout
        return connection

    @asynccontextmanager
    async def transaction(self, tenant_id: UUID) -> AsyncIterator[AsyncSession]:
        """One transaction in the tenant's scope; commits at the end of the block.

        Raises `DatabaseBusy` or `DatabaseUnavailable` (also from the commit itself, so a caller
        that sees the block end without an error knows that its rows are durable).
        """
        async with self._scoped(tenant_id=tenant_id, scope="") as session:
            yield session

    @asynccontextmanager
    async def read(self, tenant_id: UUID) -> AsyncIterator[AsyncSession]:
        """As `transaction`, but PostgreSQL refuses writes in it."""
        async with self._scoped(tenant_id=tenant_id, scope="", read_only=True) as session:
            yield session

    @asynccontextmanager
    async def system_transaction(self, reason: str) -> AsyncIterator[AsyncSession]:
        """One transaction that sees every tenant's rows; `reason` is logged at DEBUG.

        For work that belongs to no single tenant only: a test lists all callers.
        """
        log.debug("system_transaction", reason=reason)
        async with self._scoped(tenant_id=None, scope="system") as session:
            yield session

    @asynccontextmanager
    async def connection(self, tenant_id: UUID) -> AsyncIterator[Connection]:
        """As `transaction`, with psycopg's own connection: for those who write SQL themselves.

        It is one of the pool's, and costs half of what a session does. Nothing can be enqueued on
        it, because jobs are told of through their session.
        """
        try:
            pooled = await self._open(self._statement(tenant_id, ""))
            try:
                yield (connection := _driver(pooled))
                refuse_ended(connection)
                await connection.commit()
            except BaseException:
                # Rolls back. Shielded: whoever is cancelled still returns its connection.
                await asyncio.shield(pooled.close())
                raise
            await pooled.close()
        except (DBAPIError, PoolTimeout, psycopg.Error) as error:
            known = translate(error) or of_a_missing_schema(error) or of_a_standby(error)
            if known is not None:
                raise known from error
            raise

    async def _open(self, begin: str) -> AsyncConnection:
        """A pooled connection that has begun.

        Those that died in the pool show here, before the caller did anything, so to try again on
        another one is safe: as often as there may be dead ones, and once more. One that fell silent
        has taken long enough for all of them.
        """
        end = time.monotonic() + self.settings.connect_timeout.total_seconds()
        for _ in range(self.settings.pool_size):
            if (pooled := await self._try_to_open(begin)) is not None:
                return pooled
            if time.monotonic() >= end:
                break
        pooled = await self._try_to_open(begin)
        if pooled is None:
            raise DatabaseUnavailable("The database ends each connection.")
        return pooled

    async def _try_to_open(self, begin: str) -> AsyncConnection | None:
        """None for one that had died."""
        pooled = await self.engine.connect()
        driver = _driver(pooled)
        try:
            await driver.execute(begin)
        except psycopg.Error as error:
            is_lost = driver.closed or is_lost_connection(error)
            await asyncio.shield(pooled.invalidate() if is_lost else pooled.close())
            if is_lost:
                return None
            raise
        except BaseException:
            await asyncio.shield(pooled.close())
            raise
        return pooled

    def _statement(self, tenant_id: UUID | None, scope: str, *, read_only: bool = False) -> str:
        timeout = self.settings.statement_timeout
        return begin_in(tenant_id, scope, timeout=timeout, read_only=read_only)

    @asynccontextmanager
    async def _scoped(
        self, *, tenant_id: UUID | None, scope: str, read_only: bool = False
    ) -> AsyncIterator[AsyncSession]:
        try:
            begin = self._statement(tenant_id, scope, read_only=read_only)
            session = await self._begin(begin)
            try:
                yield session
                await _commit(session)
            except BaseException:
                # Rolls back. Shielded: a cancelled request still returns its connection.
                await asyncio.shield(_close(session))
                raise
        except (DBAPIError, PoolTimeout) as error:
            known = translate(error) or of_a_missing_schema(error)
            known = known or (None if read_only else of_a_standby(error))
            if known is not None:
                raise known from error
            raise
        await self._tell(session)

    async def _begin(self, begin: str) -> AsyncSession:
        """A session whose transaction has its scope.

        A connection that died in the pool shows here, before the caller did anything, so one more
        try on a fresh one is safe: a restart of PostgreSQL costs no request.
        """
        try:
            return await self._begin_once(begin)
        except DBAPIError as error:
            if not is_lost_connection(error):
                raise
            return await self._begin_once(begin)

    async def _begin_once(self, begin: str) -> AsyncSession:
        session = self._sessions()
        try:
            await session.run_sync(_begin, begin)
        except BaseException:
            await asyncio.shield(_close(session))
            raise
        return session

    async def _tell(self, session: AsyncSession) -> None:
        if (tallies := take_tallies(session)) and self.tally is not None:
            self.tally(tallies)
        notices = take_notices(session)
        if not notices or self.notify is None:
            return
        try:
            async with asyncio.timeout(NOTICE_DEADLINE.total_seconds()):
                await self.notify(notices)
        except Exception as error:  # noqa: BLE001 - the rows are committed; this was only speed
            log.debug("notice_lost", error=type(error).__name__)

    @asynccontextmanager
    async def direct(self) -> AsyncIterator[Connection]:
        """A connection with a session of its own, outside pool and pooler; autocommit is on.

        Open transactions on it with `tenant_scope`, `system_scope` or `plain_scope`. Statements on
        it may take as long as they need: bound them by `asyncio.timeout` where they shouldn't.
        Raises `DatabaseUnavailable`, also where the connection is lost in the block.
        """
        try:
            connection = await Connection.connect(
                **arguments(self.settings, self.settings.session_url, self.application_name),
                autocommit=True,
            )
            async with connection:
                yield connection
        except psycopg.Error as error:
            if (known := translate(error)) is not None:
                raise known from error
            raise

    async def check_role(self) -> None:
        """Raise `UnsafeRole` for a role that row-level security does not hold for."""
        async with self.system_transaction("role check at start") as session:
            row = await session.execute(
                text(
                    "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles"
                    " WHERE rolname IN (current_user, session_user)"
                    " ORDER BY rolsuper DESC, rolbypassrls DESC LIMIT 1"
                )
            )
            name, is_superuser, bypasses = row.one()
        if is_superuser or bypasses:
            fault = "is a superuser" if is_superuser else "has BYPASSRLS"
            raise UnsafeRole(
                f"The database role {name} {fault}, so row-level security would not keep tenants "
                f"apart. Use an ordinary role that owns the schema: CREATE ROLE jangada LOGIN "
                f"NOSUPERUSER NOBYPASSRLS."
            )


async def _commit(session: AsyncSession) -> None:
    """Commit and let go of the connection. Each step into SQLAlchemy's own code costs 20 µs."""
    await session.run_sync(_end)


def _driver(pooled: AsyncConnection) -> Connection:
    assert pooled.sync_connection is not None  # noqa: S101 - it has just executed something
    return cast("Connection", pooled.sync_connection.connection.driver_connection)


def _begin(session: Session, begin: str) -> None:
    session.connection().exec_driver_sql(begin, execution_options=_AS_IT_IS)


def _end(session: Session) -> None:
    if session.new or session.dirty or session.deleted:
        session.flush()
    refuse_ended(session.connection().connection.driver_connection)
    session.commit()
    session.close()


async def _close(session: AsyncSession) -> None:
    """Roll back what is open and return the connection; a broken one has nothing more to say."""
    with contextlib.suppress(DBAPIError):
        await session.close()
