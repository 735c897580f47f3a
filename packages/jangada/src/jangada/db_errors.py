"""What goes wrong with PostgreSQL, in words for callers: try again later, or it is our mistake."""

from datetime import timedelta

import psycopg
from psycopg import errors as pg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jangada.errors import Invalid, Unavailable
from jangada.postgres_errors import DatabaseBusy, DatabaseUnavailable, of_postgresql


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
    return of_postgresql(error.orig if isinstance(error, DBAPIError) else error)


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
