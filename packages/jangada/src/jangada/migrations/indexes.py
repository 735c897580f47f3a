"""Building and dropping indexes of tables that are in use, beside those who write to them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from alembic import op

_TIMEOUTS: Final = ("lock_timeout", "statement_timeout")
_KEEP: Final = "SELECT " + ", ".join(
    f"set_config('jangada.{name}', current_setting('{name}'), false)" for name in _TIMEOUTS
)
_RESTORE: Final = "SELECT " + ", ".join(
    f"set_config('{name}', current_setting('jangada.{name}'), false)" for name in _TIMEOUTS
)


@contextmanager
def beside_traffic(*, within: str = "1h") -> Iterator[None]:
    """What is executed inside is no transaction, and each statement may take so long.

    For `CREATE INDEX CONCURRENTLY` and `DROP INDEX CONCURRENTLY`: they wait for every transaction
    that is open, and no reader or writer waits for them, so their wait isn't bounded as that of
    other locks is. Vacuum and other changes of the table do wait.
    An attempt that broke off leaves an invalid index: drop it first, `IF EXISTS`.
    """
    with op.get_context().autocommit_block():
        op.execute(_KEEP)
        op.execute("SET lock_timeout = 0")
        op.execute(f"SET statement_timeout = '{within}'")
        yield
        op.execute(_RESTORE)
