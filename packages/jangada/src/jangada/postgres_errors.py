"""What goes wrong with PostgreSQL, as psycopg tells it; `db_errors` knows SQLAlchemy's words, too.

Apart, because every pod looks at the schema before it starts, and SQLAlchemy takes 0.2 s to import.
"""

from datetime import timedelta
from typing import Final

import psycopg
from psycopg import errors as pg

from jangada.errors import Unavailable


class DatabaseUnavailable(Unavailable):
    """PostgreSQL does not answer, or ended our connection."""

    code = "database.unavailable"


class DatabaseBusy(Unavailable):
    """No pooled connection became free in time, or a statement ran into its timeout."""

    code = "database.busy"


def of_postgresql(error: BaseException | None) -> Unavailable | None:
    """The error as `Unavailable` where trying again later may help; None where it is our own."""
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, pg.QueryCanceled | pg.LockNotAvailable):
        return DatabaseBusy("The database took too long.", retry_after=timedelta(seconds=1))
    if state.startswith("53"):
        detail = _LACKS.get(state, "The database lacks resources.")
        return DatabaseBusy(detail, retry_after=timedelta(seconds=5))
    if _is_of_the_connection(error, state):
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
