"""What an import would make of a file, told from the file's beginning."""

from dataclasses import dataclass, replace
from typing import Final

from jangada.contacts.errors import UnreadableFile
from jangada.contacts.reading.columns import Field, Layout
from jangada.contacts.reading.records import Batch
from jangada.contacts.reading.rows import Reject
from jangada.contacts.reading.sheets import ReadingOptions, Sheet

SAMPLE_BYTES: Final = 256 * 1024
SHOWN_ROWS: Final = 20


@dataclass(frozen=True, slots=True)
class Preview:
    """The dialect, the columns and the first rows of a file, and what is wrong with these.

    `has_more`: it goes on, with rows that may be wrong, too.
    """

    encoding: str
    delimiter: str
    layout: Layout
    first: Batch
    rejects: list[Reject]
    has_more: bool

    @property
    def columns(self) -> list[tuple[str, Field]]:
        """Each column's name and what it is taken for."""
        names = enumerate(self.layout.names)
        return [(name, self.layout.field_of(index)) for index, name in names]


def preview(sample: bytes, options: ReadingOptions, *, is_whole: bool) -> Preview:
    """Raises `UnreadableFile`; not for what only the end of a sample that was cut off lacks."""
    sheet = Sheet([sample], replace(options, batch_rows=1))
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for batch in sheet.records():
            if any(map(any, batch.rows)):
                rows += batch.rows
                lines += batch.lines
            if len(rows) > SHOWN_ROWS:
                break
    except UnreadableFile:
        if is_whole:
            raise
    first = Batch(rows[:SHOWN_ROWS], lines[:SHOWN_ROWS])
    return Preview(
        sheet.encoding,
        sheet.delimiter,
        sheet.layout,
        first,
        sheet.check(first).rejects,
        has_more=not is_whole or len(rows) > SHOWN_ROWS,
    )
