"""Running migrations safely from any number of processes at once.

A session-level advisory lock serialises runners. They ask for it again and again: who waits for it
in a statement has a snapshot, for whose end `CREATE INDEX CONCURRENTLY` waits in turn. Each
statement that needs a table lock waits at most `lock_timeout`, so that requests queue behind it for
no longer: it gives up and tries again. A statement takes at most five seconds, unless its revision
says that it may (`SET LOCAL statement_timeout`, `beside_traffic`): what takes longer holds its
locks for too long.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg
import stamina
from alembic import command
from alembic.config import Config
from psycopg import errors as pg
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from jangada.config import DatabaseSettings
from jangada.connections import arguments
from jangada.db_errors import translate
from jangada.errors import Unavailable
from jangada.migrations.revisions import current, head
from jangada.scopes import milliseconds
from jangada.telemetry import get_logger

log = get_logger(__name__)

LOCK_KEY: Final = 0x6A616E67  # "jang": any constant will do, as long as nobody else uses it
LOCK_WAIT: Final = timedelta(minutes=15)
LOCK_ASKED_EVERY: Final = 0.2
"""Seconds."""
LOCK_TRIES: Final = 15
GONE_WITHIN: Final = timedelta(seconds=2)
"""So soon PostgreSQL ends the statement of a migration that was killed: the next one needs its
locks."""
STATEMENT_TIMEOUT: Final = timedelta(seconds=5)
_HOLDERS: Final = """
SELECT DISTINCT c.relname, a.pid, a.usename, a.application_name, a.state, a.xact_start
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND c.relkind IN ('r', 'p') AND c.relname = ANY(:words) AND l.pid <> pg_backend_pid()
  AND coalesce(a.xact_start < clock_timestamp() - make_interval(secs => :waited), true)
ORDER BY a.xact_start LIMIT 5
"""
"""Who held tables that a statement names for as long as it waited for them. Of sessions of other
roles PostgreSQL tells the first three columns only, but to a role with `pg_read_all_stats`."""


class SchemaLocked(Unavailable):
    """Somebody holds a table, or the migrations' lock, for longer than a migration waits."""

    code = "schema.locked"


def configuration() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


@contextmanager
def _connected(
    settings: DatabaseSettings, timeouts: Mapping[str, timedelta] | None = None
) -> Iterator[Connection]:
    """A connection outside pool and pooler. Raises `DatabaseUnavailable`, `SchemaLocked`."""

    def connect() -> psycopg.Connection:
        connection = psycopg.connect(
            **arguments(settings, settings.session_url, "jangada-migrate"), autocommit=True
        )
        for name, value in (timeouts or {}).items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, milliseconds(value)))
        connection.autocommit = False
        return connection

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as error:
        raise _known(error) from error
    finally:
        engine.dispose()


def _known(error: OperationalError) -> Exception:
    if isinstance(error.orig, pg.LockNotAvailable):
        return SchemaLocked("Somebody holds a lock that the migration needs; try again later.")
    return translate(error) or error


def _known_holders(settings: DatabaseSettings, error: SchemaLocked) -> str:
    """As far as it can be asked: that it can't be, keeps nobody from trying again."""
    try:
        return _holders(settings, error)
    except (Unavailable, SQLAlchemyError) as unknown:
        log.warning("schema_holders_unknown", error=str(unknown))
        return ""


def _holders(settings: DatabaseSettings, error: SchemaLocked) -> str:
    """Who holds the tables of the statement that waited in vain, as far as it still is so."""
    cause = error.__cause__
    statement = (cause.statement if isinstance(cause, OperationalError) else None) or ""
    with _connected(settings, {"statement_timeout": STATEMENT_TIMEOUT}) as connection:
        waited = settings.lock_timeout.total_seconds()
        given = {"words": re.findall(r"\w+", statement), "waited": waited}
        found = connection.execute(text(_HOLDERS), given)
        return " ".join(
            f"Table {row.relname} is held by process {row.pid} of role {row.usename}"
            f" ({row.application_name or 'unnamed'}, {row.state or 'state unknown'},"
            f" in a transaction since {row.xact_start or 'an unknown time'})."
            for row in found
        )


def is_newer(revision: str | None) -> bool:
    """Whether the database is ahead of this code."""
    return revision is not None and revision > head()


def upgrade(settings: DatabaseSettings, *, target: str = "head") -> str | None:
    """Bring the schema to `target` and return its revision.

    Safe to run in any number of processes. Does nothing when the schema is newer than this code:
    during a rollback the older release finds its tables, since migrations only expand.
    """
    with _exclusive(settings):
        revision = current(settings)
        if is_newer(revision):
            log.warning("schema_newer", schema=revision, code=head())
            return revision
        _apply(settings, target)
        return current(settings)


def downgrade(settings: DatabaseSettings, *, target: str) -> str | None:
    """Take the schema back to `target`; the data of later revisions is lost. For development."""
    with _exclusive(settings), _connected(settings) as connection:
        _with_connection(connection, lambda config: command.downgrade(config, target))
    return current(settings)


@contextmanager
def _exclusive(settings: DatabaseSettings) -> Iterator[None]:
    """Hold the advisory lock of migrations; the connection's end releases it, also after a kill."""
    with _connected(settings, {"statement_timeout": STATEMENT_TIMEOUT}) as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        _wait_for_turn(connection)
        yield


def _wait_for_turn(connection: Connection) -> None:
    deadline = time.monotonic() + LOCK_WAIT.total_seconds()
    attempt = text("SELECT pg_try_advisory_lock(:key)")
    while not connection.scalar(attempt, {"key": LOCK_KEY}):
        if time.monotonic() > deadline:
            raise SchemaLocked(f"Another migration has been running for {LOCK_WAIT}.")
        time.sleep(LOCK_ASKED_EVERY)


@stamina.retry(on=SchemaLocked, attempts=LOCK_TRIES, timeout=None, wait_max=10.0)
def _apply(settings: DatabaseSettings, target: str) -> None:
    timeouts = {
        "lock_timeout": settings.lock_timeout,
        "statement_timeout": STATEMENT_TIMEOUT,
        "client_connection_check_interval": GONE_WITHIN,
    }
    try:
        with _connected(settings, timeouts) as connection:
            _with_connection(connection, lambda config: command.upgrade(config, target))
    except SchemaLocked as error:
        holders = _known_holders(settings, error)
        log.warning("schema_locked", holders=holders)
        raise SchemaLocked(f"{error.detail} {holders}".rstrip()) from error


def _with_connection(connection: Connection, run: Callable[[Config], None]) -> None:
    config = configuration()
    config.attributes["connection"] = connection
    run(config)
