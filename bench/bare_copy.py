"""The least that loads contacts: psycopg's `copy.write_row` into a table without policies.

Its rows are validated, without duplicates and in memory before the clock starts; the table has the
columns, defaults, checks and indexes of `contacts`, but neither row-level security nor foreign key.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg

from jangada.contacts.reading.rows import COPY_COLUMNS, NULL, Limits
from jangada.contacts.reading.sheets import ReadingOptions, Sheet
from jangada.db import new_id

CREATE = """
    CREATE TABLE bare_contacts
        (LIKE contacts INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)
"""
COPY = """
    COPY bare_contacts (tenant_id, id, email, phone, name, name_key, company) FROM STDIN
"""
OPTIONS = ReadingOptions(region="BR", limits=Limits(columns=512, cell_chars=10_000))

type Row = tuple[str | None, ...]


def validated(path: Path) -> list[Row]:
    """The file's good rows, each key once, as text: what costs `write_row` the least."""
    tenant = str(uuid4())
    latest = {row[0] or row[1]: row for row in _good(path)}
    return [(tenant, str(new_id()), *row) for row in latest.values()]


def _good(path: Path) -> Iterator[Row]:
    start, end = COPY_COLUMNS.index("email"), COPY_COLUMNS.index("attributes")
    with path.open("rb") as file:
        for checked in Sheet(iter(lambda: file.read(1 << 20), b""), OPTIONS).checked():
            for line in checked.copy.decode().split("\n")[:-1]:
                cells = line.split("\t")[start:end]
                yield tuple(None if cell == NULL else cell for cell in cells)


def load(url: str, rows: Iterable[Row]) -> float:
    """Copy the rows in one transaction; the seconds from its begin to the end of its commit."""
    with psycopg.connect(url, autocommit=True) as connection:
        began = time.perf_counter()
        with connection.transaction(), connection.cursor().copy(COPY) as copy:
            for row in rows:
                copy.write_row(row)
        return time.perf_counter() - began
