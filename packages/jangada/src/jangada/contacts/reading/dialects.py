"""Dialects: which character stands between the cells of a file."""

import csv
import re
from collections.abc import Sequence
from itertools import islice
from typing import Final

from jangada.contacts.reading.columns import Field, recognized
from jangada.contacts.texts import clean

DELIMITERS: Final = (",", ";", "\t", "|")

_SAMPLE_ROWS: Final = 50
_SEP: Final = re.compile(r'"?sep=(?P<delimiter>[,;|\t])"?\s*', re.IGNORECASE)


def declared_delimiter(line: str) -> str | None:
    """The delimiter that Excel's first line `sep=;` declares."""
    found = _SEP.fullmatch(line)
    return None if found is None else found["delimiter"]


def detect_delimiter(lines: Sequence[str]) -> str:
    """The delimiter that gives the header the most names we know, and the rows the same width."""
    return max(DELIMITERS, key=lambda delimiter: _score(lines, delimiter))


def _score(lines: Sequence[str], delimiter: str) -> tuple[int, float, int]:
    rows = _sample(lines, delimiter)
    if not rows:
        return 0, 0, 0
    header, width = rows[0], len(rows[0])
    known = sum(recognized(clean(cell)) is not Field.ATTRIBUTE for cell in header)
    alike = sum(len(row) == width for row in rows) / len(rows)
    return known, alike if width > 1 else 0, width


def _sample(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        return [row for row in islice(rows, _SAMPLE_ROWS) if any(row)]
    except csv.Error:
        return []
