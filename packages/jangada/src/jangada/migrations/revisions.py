"""Which revision this code needs and which the database has, without Alembic: every pod asks."""

from pathlib import Path

import psycopg
from psycopg import errors as pg

from jangada.config import DatabaseSettings
from jangada.connections import arguments
from jangada.postgres_errors import of_postgresql

VERSIONS = Path(__file__).parent / "versions"


def head() -> str:
    """The revision that this code needs: the last of a line, read from the names of the files.

    Alembic would say the same and takes 0.2 s to import, in every process that asks for readiness.
    """
    return max(path.name for path in VERSIONS.glob("[0-9]*.py"))[:4]


def current(settings: DatabaseSettings) -> str | None:
    """The revision that the database is at; None for an empty one. Raises `DatabaseUnavailable`."""
    try:
        with psycopg.connect(
            **arguments(settings, settings.session_url, "jangada-migrate")
        ) as connection:
            row = connection.execute("SELECT max(version_num) FROM alembic_version").fetchone()
    except pg.UndefinedTable:
        return None
    except psycopg.Error as error:
        raise of_postgresql(error) or error from error
    return row[0] if row else None
