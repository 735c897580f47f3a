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
from jangada.scopes import plain_scope

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
_LATEST: Final[LiteralString] = """
    CREATE TEMPORARY TABLE latest AS
    SELECT DISTINCT ON (email, CASE WHEN email IS NULL THEN phone END) * FROM staged
    ORDER BY email, CASE WHEN email IS NULL THEN phone END, line DESC
"""
# Runs that fit into the processor's cache are sorted a third faster than larger ones.
_SORT_MEMORY: Final[LiteralString] = "SET LOCAL work_mem = '8MB'"

COPY_BYTES: Final = 1_048_576
"""About so much is copied at once: each COPY costs round trips, during which nothing is checked."""


class Stage:
    """What of a file has been read and checked. `good` and `rejected` count its rows."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.good = 0
        self.rejected = 0
        self.latest = 0
        self._held: dict[bytes, list[bytes]] = {_COPY: [], _COPY_REJECTS: []}
        self._held_bytes = 0

    @property
    def rows(self) -> int:
        return self.good + self.rejected

    async def create(self) -> None:
        for statement in _CREATE:
            await self.connection.execute(statement)

    async def add(self, checked: Checked) -> None:
        self._hold(_COPY, checked.copy)
        self._hold(_COPY_REJECTS, "".join(map(_copy_line, checked.rejects)).encode())
        self.good += checked.good
        self.rejected += len(checked.rejects)
        if self._held_bytes >= COPY_BYTES:
            await self._copy()

    def _hold(self, statement: bytes, rows: bytes) -> None:
        self._held[statement].append(rows)
        self._held_bytes += len(rows)

    async def _copy(self) -> None:
        for statement, held in self._held.items():
            if rows := b"".join(held):
                async with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
                    await copy.write(rows)
            held.clear()
        self._held_bytes = 0

    async def keep_last(self) -> None:
        """Of the rows with the same key only the last one counts; makes the table `latest`."""
        await self._copy()
        async with plain_scope(self.connection):
            await self.connection.execute(_SORT_MEMORY)
            self.latest = (await self.connection.execute(_LATEST)).rowcount
            await self.connection.execute("DROP TABLE staged")


def _copy_line(reject: Reject) -> str:
    cells = [str(reject.line), reject.column, reject.reason, orjson.dumps(reject.cells).decode()]
    return "\t".join(escaped(cells)) + "\n"
