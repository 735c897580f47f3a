"""Running migrations safely from any number of processes at once.

A session-level advisory lock serialises runners; each statement that needs a table lock waits at
most `lock_timeout`, so a migration never queues traffic behind itself: it gives up and tries again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import stamina
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import errors as pg
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from jangada.config import DatabaseSettings
from jangada.db import sqlalchemy_url, translate
from jangada.errors import Conflict
from jangada.telemetry import get_logger

log = get_logger(__name__)

LOCK_KEY: Final = 0x6A616E67  # "jang": any constant will do, as long as nobody else uses it
LOCK_WAIT: Final = "15min"
LOCK_TRIES: Final = 10


class SchemaNewer(Conflict):
    """The database was migrated by a newer release than this one."""

    code = "schema.newer"


def configuration() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def head() -> str:
    """The revision that this code needs."""
    revision = ScriptDirectory.from_config(configuration()).get_current_head()
    assert revision is not None, "the wheel ships its migrations"  # noqa: S101
    return revision


@contextmanager
def _connected(settings: DatabaseSettings, options: str = "") -> Iterator[Connection]:
    engine = create_engine(
        sqlalchemy_url(settings.session_url.get_secret_value()),
        poolclass=NullPool,
        connect_args={
            "connect_timeout": max(2, round(settings.connect_timeout.total_seconds())),
            "application_name": "jangada-migrate",
            "options": options,
        },
    )
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as error:
        if _lock_is_held(error):
            raise
        raise translate(error) or error from error
    finally:
        engine.dispose()


def current(settings: DatabaseSettings) -> str | None:
    """The revision that the database is at; None for an empty one. Raises `DatabaseUnavailable`."""
    with _connected(settings) as connection:
        return MigrationContext.configure(connection).get_current_revision()


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
    with _connected(settings) as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(f"SET lock_timeout = '{LOCK_WAIT}'"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
        yield


def _lock_is_held(error: Exception) -> bool:
    return isinstance(error, OperationalError) and isinstance(error.orig, pg.LockNotAvailable)


@stamina.retry(on=_lock_is_held, attempts=LOCK_TRIES, timeout=None, wait_max=10.0)
def _apply(settings: DatabaseSettings, target: str) -> None:
    milliseconds = int(settings.lock_timeout.total_seconds() * 1000)
    with _connected(settings, f"-c lock_timeout={milliseconds}") as connection:
        _with_connection(connection, lambda config: command.upgrade(config, target))


def _with_connection(connection: Connection, run: Callable[[Config], None]) -> None:
    config = configuration()
    config.attributes["connection"] = connection
    run(config)
