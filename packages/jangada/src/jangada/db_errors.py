"""What goes wrong with PostgreSQL, in words for callers: try again later, or it is our mistake."""

from datetime import timedelta
from typing import Final

import psycopg
from psycopg import errors as pg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jangada.errors import Invalid, Unavailable


class DatabaseUnavailable(Unavailable):
    """PostgreSQL does not answer, or ended our connection."""

    code = "database.unavailable"


class DatabaseBusy(Unavailable):
    """No pooled connection became free in time, or a statement ran into its timeout."""

    code = "database.busy"


class UnsafeRole(Invalid):
    """The database role bypasses row-level security, so tenants would not be kept apart."""

    code = "database.unsafe_role"


class PooledSession(Invalid):
    """What needs a session of its own found a pooler between itself and PostgreSQL."""

    code = "database.pooled_session"


class TransactionAborted(Exception):
    """A bug of the block: a statement in it failed, and the block went on as if nothing were.

    A statement that may fail belongs into a savepoint (`session.begin_nested()`).
    """


def is_lost_connection(error: DBAPIError | psycopg.Error) -> bool:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    original = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(original, pg.AdminShutdown | pg.CrashShutdown | pg.CannotConnectNow)


def translate(error: DBAPIError | PoolTimeout | psycopg.Error) -> Unavailable | None:
    """The error as `Unavailable` where trying again later may help; None where it is our own."""
    if isinstance(error, PoolTimeout):
        return DatabaseBusy(
            "All database connections are in use.", retry_after=timedelta(seconds=1)
        )
    original = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(original, "sqlstate", None) or ""
    if isinstance(original, pg.QueryCanceled | pg.LockNotAvailable):
        return DatabaseBusy("The database took too long.", retry_after=timedelta(seconds=1))
    if state.startswith("53"):
        detail = _LACKS.get(state, "The database lacks resources.")
        return DatabaseBusy(detail, retry_after=timedelta(seconds=5))
    if _is_of_the_connection(original, state):
        return DatabaseUnavailable(
            "The database cannot be reached.", retry_after=timedelta(seconds=5)
        )
    return None


_LACKS: Final = {
    "53100": "The database's disk is full.",
    "53200": "The database is out of memory.",
    "53300": "The database has no connection left.",
}
"""By SQLSTATE, class 53: who is woken by it should not look for slow statements."""

_HUNG_UP_ON: Final = frozenset({"25P03", "25P04"})
"""The server's own limits on idle and on long transactions: it closes the connection."""


def _is_of_the_connection(original: BaseException | None, state: str) -> bool:
    if not state:
        return isinstance(original, psycopg.OperationalError | psycopg.InterfaceError)
    return state[:2] in {"08", "57"} or state in _HUNG_UP_ON


def of_a_standby(error: DBAPIError | PoolTimeout | psycopg.Error) -> Unavailable | None:
    """A transaction that may write met a server that takes no writes: a failover isn't over."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, pg.ReadOnlySqlTransaction):
        return None
    return DatabaseUnavailable(
        "The database takes no writes now.", retry_after=timedelta(seconds=5)
    )


def of_a_missing_schema(
    error: DBAPIError | PoolTimeout | psycopg.Error,
) -> Unavailable | None:
    """A table isn't there: the database was lost, or is being restored, under a running process."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, pg.UndefinedTable):
        return None
    return DatabaseUnavailable(
        "The database has no schema, or only a part of it.", retry_after=timedelta(seconds=5)
    )
