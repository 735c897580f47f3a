"""A contact file, opened: what it is, and its rows in checked batches."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from jangada.contacts.errors import EmptyFile, UnknownRegion
from jangada.contacts.phones import is_region
from jangada.contacts.reading.columns import Field, Layout, build_layout
from jangada.contacts.reading.decoding import Decoder, split_head
from jangada.contacts.reading.dialects import declared_delimiter, detect_delimiter
from jangada.contacts.reading.records import Batch, LineSplitter, RecordReader
from jangada.contacts.reading.rows import Checked, Limits, RowChecker


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How a file is read. What is None is found out from the file."""

    region: str
    limits: Limits
    delimiter: str | None = None
    encoding: str | None = None
    mapping: Mapping[str, Field | None] | None = None
    batch_rows: int = 5_000


class Sheet:
    """One file from its header on. Opening it raises `UnreadableFile`, and so does reading on."""

    def __init__(self, chunks: Iterable[bytes], options: ReadingOptions) -> None:
        if not is_region(options.region):
            raise UnknownRegion(f"{options.region!r} is no country with a calling code.")
        self._options = options
        self.bytes_read = 0
        head, rest = split_head(chunks)
        self._decoder = Decoder(head, options.encoding)
        texts = self._decoder.texts(self._counted(chain([head], rest)))
        self._open(LineSplitter(options.limits.lines).blocks(texts))

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.bytes_read += len(chunk)
            yield chunk

    def _open(self, blocks: Iterator[list[str]]) -> None:
        first = next(blocks, [])
        declared = declared_delimiter(first[0]) if first else None
        skipped = 0 if declared is None else 1
        lines = first[skipped:]
        self.delimiter = self._options.delimiter or declared or detect_delimiter(lines)
        records = RecordReader(chain([lines], blocks), self.delimiter, skipped=skipped)
        self._batches = records.batches(self._options.batch_rows)
        self.layout = self._layout()
        self._checker = RowChecker(
            self.layout, region=self._options.region, limits=self._options.limits
        )

    def _layout(self) -> Layout:
        """The layout by the first row that isn't blank; the rows after it go back in front."""
        for batch in self._batches:
            filled = (i for i, row in enumerate(batch.rows) if any(map(str.strip, row)))
            at = next(filled, None)
            if at is not None:
                rest = Batch(batch.rows[at + 1 :], batch.lines[at + 1 :])
                self._batches = chain([rest], self._batches)
                options = self._options
                return build_layout(
                    batch.rows[at], options.mapping, max_columns=options.limits.columns
                )
        raise EmptyFile("The file has no rows.")

    @property
    def encoding(self) -> str:
        """The encoding as far as the file has been read."""
        return self._decoder.encoding

    def records(self) -> Iterator[Batch]:
        """The rows after the header, unchecked: for a preview."""
        return self._batches

    def check(self, batch: Batch) -> Checked:
        return self._checker.check(batch)

    def checked(self) -> Iterator[Checked]:
        """The rows after the header, batch by batch."""
        return map(self.check, self._batches)
