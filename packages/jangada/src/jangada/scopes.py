"""How transactions get their scope, and those on direct connections; `jangada.db` has the pool's.

A scope holds for its transaction only, but where a whole session is the system's.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from jangada.connections import Connection
from jangada.db_errors import PooledSession, TransactionAborted
from jangada.telemetry import get_logger

log = get_logger(__name__)

_SCOPE_SQL: Final = (
    "SELECT set_config('jangada.tenant_id', %s, true), set_config('jangada.scope', %s, true)"
)


_BEGIN: Final = (
    "BEGIN{mode}; SELECT set_config('jangada.tenant_id', '{tenant}', true),"
    " set_config('jangada.scope', '{scope}', true),"
    " set_config('statement_timeout', '{timeout}', true)"
)
"""Transaction and scope in one exchange with the server. Such a pair has no parameters: what is
put in is a UUID, a word of ours or a number."""


def milliseconds(duration: timedelta) -> str:
    """As PostgreSQL's timeouts are written; never 0, which would switch them off."""
    return str(max(1, round(duration.total_seconds() * 1000)))


def begin_in(
    tenant_id: UUID | None, scope: str, *, timeout: timedelta, read_only: bool = False
) -> str:
    """The statements that begin a transaction in a scope, for one exchange with the server."""
    return _BEGIN.format(
        mode=" READ ONLY" if read_only else "",
        tenant="" if tenant_id is None else UUID(int=tenant_id.int),
        scope=scope,
        timeout=milliseconds(timeout),
    )


@asynccontextmanager
async def tenant_scope(
    connection: psycopg.AsyncConnection[TupleRow], tenant_id: UUID
) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
    """One transaction in the tenant's scope on a direct connection; commits at the end."""
    async with connection.transaction():
        await connection.execute(_SCOPE_SQL, (str(tenant_id), ""))
        yield connection
        refuse_aborted(connection)


@asynccontextmanager
async def system_scope(
    connection: psycopg.AsyncConnection[TupleRow], reason: str
) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
    """One transaction that sees every tenant's rows, on a direct connection; commits at the end."""
    log.debug("system_transaction", reason=reason)
    async with connection.transaction():
        if not is_system_session(connection):
            await connection.execute(_SCOPE_SQL, ("", "system"))
        yield connection
        refuse_aborted(connection)


async def open_system_session(connection: Connection, reason: str) -> None:
    """Have each statement from here on see every tenant's rows, also one without a transaction.

    For a direct connection that does nothing else until it is closed: a scope for each transaction
    costs an exchange with the server, and a single statement needs no transaction around it.
    Raises `PooledSession` behind a pooler.
    """
    log.debug("system_session", reason=reason)
    await refuse_pooler(connection)
    await connection.execute("SELECT set_config('jangada.scope', 'system', false)")
    connection.is_system = True


async def refuse_pooler(connection: Connection) -> None:
    """Raise `PooledSession` behind a pooler.

    What is set on a pooler's server connection would hold for whoever is given it next.
    """
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    if row is None or row[0] != connection.info.backend_pid:
        raise PooledSession(
            "A pooler is between us and PostgreSQL. Set JANGADA_DATABASE__DIRECT_URL to the server "
            "itself, and JANGADA_DATABASE__TRANSACTION_POOLING to true."
        )


def is_system_session(connection: psycopg.AsyncConnection[TupleRow]) -> bool:
    """Whether every statement on the connection sees every tenant's rows."""
    return isinstance(connection, Connection) and connection.is_system


@asynccontextmanager
async def plain_scope(
    connection: psycopg.AsyncConnection[TupleRow],
) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
    """One transaction that sees no tenant's rows, on a direct connection; commits at the end."""
    async with connection.transaction():
        if is_system_session(connection):
            await connection.execute(_SCOPE_SQL, ("", ""))
        yield connection
        refuse_aborted(connection)


def refuse_ended(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy does not know its type
    """Raise `TransactionAborted` where there is no transaction to commit, sound or not."""
    refuse_aborted(connection)
    if connection.info.transaction_status is TransactionStatus.IDLE:
        raise TransactionAborted("The transaction was ended inside of its block.")


def refuse_aborted(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy does not know its type
    if connection.info.transaction_status is TransactionStatus.INERROR:
        raise TransactionAborted("A statement failed and its error was swallowed.")
