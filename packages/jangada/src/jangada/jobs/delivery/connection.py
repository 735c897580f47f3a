"""A direct connection that is opened when needed and again after it was lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from enum import StrEnum, auto
from typing import Final, LiteralString

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from jangada import connections
from jangada.db import Database
from jangada.db_errors import translate
from jangada.postgres_errors import DatabaseUnavailable
from jangada.scopes import open_system_session, system_scope

type Connection = psycopg.AsyncConnection[TupleRow]


class Manner(StrEnum):
    """How the planner is to go about the statements of a transaction, or of a whole session."""

    INDEXED = auto()
    """Statements that walk the indexes of jobs, whatever statistics say."""
    PROBING = auto()
    """Statements about jobs that are named by their keys: one probe each."""


# Statistics are always wrong about a queue: it was full when they were taken and is empty now, or
# the other way round, and policies with OR make every estimate a guess. The partial indexes are
# right at any size, so everything that would lead away from them is taken from the planner
# (measured with 100,000 waiting jobs: 6 ms instead of 48 ms a round). A plan is kept for as long as
# the connection: one that was made while there were few jobs would read all of them when there are
# many (20 jobs granted beside 300,000 finished ones: 8 ms instead of 95 ms).
_OF_BOTH: Final[LiteralString] = """
    SELECT set_config('idle_in_transaction_session_timeout', %(idle)s, %(is_local)s),
        set_config('enable_seqscan', 'off', %(is_local)s),
        set_config('enable_bitmapscan', 'off', %(is_local)s)"""

_SETTINGS: Final[dict[Manner, LiteralString]] = {
    Manner.INDEXED: f"""{_OF_BOTH},
        set_config('enable_sort', 'off', %(is_local)s),
        set_config('enable_incremental_sort', 'off', %(is_local)s)
    """,
    Manner.PROBING: f"""{_OF_BOTH},
        set_config('enable_hashjoin', 'off', %(is_local)s),
        set_config('enable_mergejoin', 'off', %(is_local)s)
    """,
}

_BRIEFLY: Final[LiteralString] = (
    "SELECT set_config('idle_in_transaction_session_timeout', %s, true)"
)

LONGEST_IDLE: Final = timedelta(seconds=5)
"""How long a process may do nothing inside a transaction of delivery before PostgreSQL ends it.

Longer than a round waits for Valkey. A frozen process would keep its locks for as long as it is
frozen: a queue without a dispatcher, jobs that nobody can start.
"""

_LONGEST_IDLE: Final = str(int(LONGEST_IDLE.total_seconds() * 1000))


PLANS_LAST: Final = 1.0
"""How long a connection keeps the plans of its statements, in seconds.

A plan is made for the size that a table has at that moment, and a queue fills in less than a
second: with one of an empty table each grant read all of 100,000 new jobs (500 ms instead of 1 ms).
"""


@asynccontextmanager
async def indexed_scope(connection: Connection, reason: str) -> AsyncIterator[None]:
    """System scope for statements that walk the indexes of jobs.

    PostgreSQL ends the transaction should this process freeze in it.
    """
    async with _scope(connection, reason, Manner.INDEXED):
        yield


@asynccontextmanager
async def probing_scope(connection: Connection, reason: str) -> AsyncIterator[None]:
    """As `indexed_scope`, for statements about jobs that are named by their keys."""
    async with _scope(connection, reason, Manner.PROBING):
        yield


@asynccontextmanager
async def probing_statement(connection: Connection, reason: str) -> AsyncIterator[None]:
    """As `probing_scope`, for a single statement: where the session is set up so, it needs none."""
    if _is_for(connection, Manner.PROBING):
        yield
    else:
        async with probing_scope(connection, reason):
            yield


@asynccontextmanager
async def _scope(connection: Connection, reason: str, manner: Manner) -> AsyncIterator[None]:
    async with system_scope(connection, reason):
        if not _is_for(connection, manner):
            await _set(connection, manner, is_local=True)
        yield


def _is_for(connection: Connection, manner: Manner) -> bool:
    return isinstance(connection, connections.Connection) and connection.manner == manner


async def _set(connection: Connection, manner: Manner, *, is_local: bool) -> None:
    parameters = {"idle": _LONGEST_IDLE, "is_local": is_local}
    await connection.execute(_SETTINGS[manner], parameters)


async def be_brief(connection: Connection) -> None:
    """Have PostgreSQL end the present transaction should this process freeze in it."""
    await connection.execute(_BRIEFLY, (_LONGEST_IDLE,))


class DirectConnection:
    """One connection outside pool and pooler, used by one piece of work at a time.

    Opening it may take as long as `deadline`, and the work again as long; then it is hung up. Work
    that fails in a way that leaves it in doubt closes it, so that the next one begins on a sound
    connection. Work must be repeatable: whether it took effect isn't known after an error.

    Its session is in the system's scope and has the manner from its start, so that a scope is a
    transaction and no more, and a statement needs no scope.
    """

    def __init__(
        self, database: Database, *, deadline: timedelta, manner: Manner = Manner.INDEXED
    ) -> None:
        self._database = database
        self._deadline = deadline
        self._manner = manner
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._connection: connections.Connection | None = None
        self._planned_at = 0.0

    async def run[T](self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do the work within the deadline. Raises `Unavailable` where trying again may help."""
        async with self._lock:
            try:
                async with asyncio.timeout(self._deadline.total_seconds()):
                    connection = await self._open()
                # Once connected, a server that says nothing is hung up on: it would be asked to
                # cancel, and waited for.
                with connection.hung_up_after(self._deadline):
                    await self._set_up(connection)
                    await self._plan_anew(connection)
                    return await work(connection)
            except TimeoutError as error:
                await self._close()
                raise DatabaseUnavailable("The database took too long.") from error
            except psycopg.Error as error:
                await self._close()
                known = translate(error)
                if known is None:
                    raise
                raise known from error
            except BaseException:
                if not self._is_sound():
                    await self._close()
                raise

    async def _plan_anew(self, connection: Connection) -> None:
        if time.monotonic() - self._planned_at >= PLANS_LAST:
            await connection.execute("DISCARD PLANS")
            self._planned_at = time.monotonic()

    def _is_sound(self) -> bool:
        """Whether the next piece of work may use it: no statement or transaction is under way."""
        return self._connection is not None and _is_idle(self._connection)

    async def _open(self) -> connections.Connection:
        if self._connection is None or self._connection.closed:
            await self._stack.aclose()
            self._connection = await self._stack.enter_async_context(self._database.direct())
        return self._connection

    async def _set_up(self, connection: connections.Connection) -> None:
        """The session of a connection that is new; one that fails in here is closed."""
        if not connection.manner:
            await open_system_session(connection, "delivery")
            await _set(connection, self._manner, is_local=False)
            connection.manner = self._manner

    async def _close(self) -> None:
        """Never waits for the server: one that is silent would keep us for as long as it is."""
        connection, self._connection = self._connection, None
        if connection is not None and not _is_idle(connection):
            connection.hang_up()
        with suppress(DatabaseUnavailable, psycopg.Error):
            await asyncio.shield(self._stack.aclose())

    async def close(self) -> None:
        async with self._lock:
            await self._close()


def _is_idle(connection: Connection) -> bool:
    return connection.info.transaction_status is TransactionStatus.IDLE
