"""Text to records: lines, cells and the line number at which each record begins.

Reads RFC 4180 with line breaks inside quoted cells, and CRLF, LF and CR as line ends. Memory stays
flat whatever the file holds: a record that doesn't end within `MAX_RECORD_CHARS` ends the reading,
because the quote that opens it is then never closed.
"""

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Final

from jangada.contacts.errors import (
    NulByte,
    RecordTooLong,
    TooManyLines,
    UnbalancedQuote,
    Undecodable,
)
from jangada.contacts.reading.decoding import NUL, BrokenText

MAX_RECORD_CHARS: Final = 1_048_576
MAX_BATCH_CHARS: Final = 393_216
"""Of many small cells each takes twenty times the room of its characters, in several columns."""

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_END: Final = "\0"
"""Two cells of this follow the last line. No text holds a NUL: a quote that never ends makes one
cell of them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in file order, blank ones included, each with the line at which it begins."""

    rows: list[list[str]]
    lines: Sequence[int]


class LineSplitter:
    """Cuts text into lines, and says at which line text that can't be read stands."""

    def __init__(self, max_lines: int = sys.maxsize) -> None:
        self._max_lines = max_lines
        self._lines = 0
        self._rest = ""

    def blocks(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """Lists of whole lines with their ends, as many as each piece of text completes.

        Raises `TooManyLines`: a file of line ends alone would hold a worker for long.
        """
        try:
            for text in texts:
                yield self._split(text)
        except BrokenText as error:
            raise self._located(error) from error
        if self._rest:
            yield [self._rest]

    def _split(self, text: str) -> list[str]:
        lines = io.StringIO(self._rest + text, newline="").readlines()
        # A final CR may be half of a CRLF.
        self._rest = lines.pop() if lines and not lines[-1].endswith("\n") else ""
        self._lines += len(lines)
        if self._lines > self._max_lines:
            raise TooManyLines(f"The file has more than {self._max_lines:,} lines. Divide it.")
        if len(self._rest) > MAX_RECORD_CHARS:
            raise RecordTooLong(
                f"Line {self._lines + 1} is longer than {MAX_RECORD_CHARS:,} characters."
            )
        return lines

    def _located(self, error: BrokenText) -> NulByte | Undecodable:
        line = self._lines + 1 + len(_LINE_END.findall(self._rest))
        where = f"In line {line}, at byte {error.offset:,} of the file, {error.what}."
        if error.what is NUL:
            return NulByte(f"{where} The file is damaged or in another encoding.")
        return Undecodable(f"{where} Name the file's encoding, or export it as UTF-8.")


def _line_count(row: list[str]) -> int:
    """How many lines a record takes up."""
    return 1 + sum(len(_LINE_END.findall(cell)) for cell in row if "\n" in cell or "\r" in cell)


class RecordReader:
    """Reads records in batches, each bounded in rows and in characters."""

    def __init__(self, blocks: Iterable[list[str]], delimiter: str, *, skipped: int = 0) -> None:
        self._blocks = blocks
        self._delimiter = delimiter
        self._line = skipped
        self._skipped = skipped
        self._rows: list[list[str]] = []
        self._finished = 0
        self._limit = 0
        self._reader = csv.reader(
            chain.from_iterable(self._feed()), delimiter=delimiter, skipinitialspace=True
        )

    def batches(self, size: int) -> Iterator[Batch]:
        """Raises `UnbalancedQuote` and `RecordTooLong`."""
        rows, self._limit = self._rows, size
        try:
            for row in self._reader:
                rows.append(row)
                if len(rows) >= self._limit:
                    yield from self._taken()
                    rows, self._limit = self._rows, size
        except csv.Error as error:
            raise self._endless() from error
        yield from self._taken()

    def _taken(self) -> Iterator[Batch]:
        """The records read so far as a batch, if there are any."""
        rows = self._rows
        after_end = 0
        if rows and rows[-1] and rows[-1][-1].endswith(_END):
            after_end = 1
            if rows.pop() != [_END, _END]:
                raise self._endless()
        if rows:
            yield Batch(rows, self._numbered(rows, self._reader.line_num - after_end))
        self._rows = []
        self._finished += len(rows)

    def _numbered(self, rows: list[list[str]], lines_read: int) -> Sequence[int]:
        read = lines_read + self._skipped
        first, self._line = self._line + 1, read
        if read - first + 1 == len(rows):
            return range(first, read + 1)
        return list(accumulate(map(_line_count, rows[:-1]), initial=first))

    def _feed(self) -> Iterator[list[str]]:
        unfinished = in_batch = 0
        before = taken = 0
        for block in self._blocks:
            finished = self._finished + len(self._rows)
            unfinished = 0 if finished != before else unfinished
            in_batch = 0 if self._finished != taken else in_batch
            before, taken = finished, self._finished
            if unfinished > MAX_RECORD_CHARS:
                raise self._endless()
            if in_batch > MAX_BATCH_CHARS:
                self._limit = len(self._rows) + 1
            size = sum(map(len, block))
            unfinished += size
            in_batch += size
            yield block
        yield [f"{_END}{self._delimiter}{_END}"]

    def _endless(self) -> UnbalancedQuote | RecordTooLong:
        start = self._line + sum(map(_line_count, self._rows)) + 1
        if self._reader.line_num + self._skipped > start:
            return UnbalancedQuote(
                f"The row that begins in line {start} has a quoted cell that never ends."
            )
        return RecordTooLong(f"Line {start} has a cell of more than 131,072 characters.")
