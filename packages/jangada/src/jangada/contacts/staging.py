"""The stage of an import: temporary tables on a direct connection, filled by COPY.

They have no row-level security (COPY into protected tables is refused), are seen by this session
alone and go with it, however it ends. Every COPY is a transaction of its own, so that none is open
while a file is read.
"""

from typing import Final, LiteralString

import orjson
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from jangada.contacts.reading.cells import escaped
from jangada.contacts.reading.rows import COPY_COLUMNS, Checked, Reject

type Connection = AsyncConnection[TupleRow]

_CREATE: Final[tuple[LiteralString, ...]] = (
    "SET client_encoding = 'UTF8'",
    "SET temp_buffers = '64MB'",
    "SET work_mem = '64MB'",
    "SET jit = off",
    """CREATE TEMPORARY TABLE staged (
        line bigint, email text COLLATE "C", phone text COLLATE "C", name text,
        name_key text COLLATE "C", company text, attributes jsonb)""",
    """CREATE TEMPORARY TABLE staged_rejects (
        line bigint, column_name text, reason text, cells jsonb)""",
)
_COPY: Final = f"COPY staged ({', '.join(COPY_COLUMNS)}) FROM STDIN".encode()
_COPY_REJECTS: Final = b"COPY staged_rejects (line, column_name, reason, cells) FROM STDIN"

# In the order of the key, so that what is inserted from it meets the indexes page after page.
_KEEP_LAST: Final[tuple[LiteralString, ...]] = (
    "ANALYZE staged",
    """CREATE TEMPORARY TABLE latest AS
    SELECT DISTINCT ON (coalesce(email, phone)) * FROM staged
    ORDER BY coalesce(email, phone), line DESC""",
    "ANALYZE latest",
    "TRUNCATE staged",
)


class Stage:
    """What of a file has been read and checked. `good` and `rejected` count its rows."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.good = 0
        self.rejected = 0
        self.latest = 0

    @property
    def rows(self) -> int:
        return self.good + self.rejected

    async def create(self) -> None:
        for statement in _CREATE:
            await self.connection.execute(statement)

    async def add(self, checked: Checked) -> None:
        if checked.good:
            await self._copy(_COPY, checked.copy)
        if checked.rejects:
            await self._copy(_COPY_REJECTS, "".join(map(_copy_line, checked.rejects)).encode())
        self.good += checked.good
        self.rejected += len(checked.rejects)

    async def _copy(self, statement: bytes, rows: bytes) -> None:
        async with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            await copy.write(rows)

    async def keep_last(self) -> None:
        """Of the rows with the same key only the last one counts; makes the table `latest`."""
        for statement in _KEEP_LAST:
            await self.connection.execute(statement)
        cursor = await self.connection.execute("SELECT count(*) FROM latest")
        row = await cursor.fetchone()
        self.latest = int(row[0]) if row else 0


def _copy_line(reject: Reject) -> str:
    cells = [str(reject.line), reject.column, reject.reason, orjson.dumps(reject.cells).decode()]
    return "\t".join(escaped(cells)) + "\n"
