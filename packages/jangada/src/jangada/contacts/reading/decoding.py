"""Bytes to text: which encoding a file has, and where it stops being text.

A byte order mark decides; without one the file is UTF-8 until the first byte that isn't. If that is
the first byte beyond ASCII, the file comes from a program that writes Windows-1252, and
charset-normalizer says whether that makes sense of it; otherwise the file is damaged. So the whole
file is read once only, and an accent in its last line is found as well as one in its first.
"""

import codecs
import encodings
from collections.abc import Iterable, Iterator
from encodings.aliases import aliases
from typing import Final

import charset_normalizer

from jangada.contacts.errors import EmptyFile, NotText, UnknownEncoding

SAMPLE_BYTES: Final = 65_536
PIECE_BYTES: Final = 131_072
"""At most so much is text at once: lines of one letter take fifty times the room of their bytes."""
LEGACY: Final = "windows-1252"

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BINARY: Final = (
    (b"PK\x03\x04", "a spreadsheet (.xlsx, .ods) or another zip archive"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"SQLite format 3\0", "a database"),
)
_ENCODINGS: Final = (
    *("utf-8", "utf-16", "utf-32", "ascii", "cp", "iso8859", "mac-", "koi8", "tis-620"),
    *("shift_jis", "euc_", "iso2022", "gb", "big5", "hz", "johab"),
)
_SPELLINGS: Final = frozenset(
    {
        *aliases,
        *aliases.values(),
        *("utf_8_sig", "cp720", "cp737", "cp856", "cp874", "cp875", "cp1006", "koi8_t", "koi8_u"),
        *("mac_arabic", "mac_croatian", "mac_farsi", "mac_romanian"),
    }
)
"""What Python is asked for: it remembers every other name that it is asked for, for good."""
MAX_ENCODING_CHARS: Final = 40
_MOSTLY: Final = 0.6


class BrokenText(Exception):
    """The stream stops being text at this byte; the text before it has been yielded."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(what)
        self.offset = offset
        self.what = what


def split_head(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, enough to tell what the file is, and the rest of the stream."""
    rest = iter(chunks)
    head = b""
    for chunk in rest:
        head += chunk
        if len(head) >= SAMPLE_BYTES:
            break
    if not head:
        raise EmptyFile("The file is empty.")
    return head, rest


def refuse_binary(head: bytes) -> None:
    for magic, what in _BINARY:
        if head.startswith(magic):
            raise NotText(f"This is {what}, not a CSV file. Export it as CSV.")


def known_encoding(name: str) -> str:
    """Python's name of a text encoding. Raises `UnknownEncoding`."""
    plain = encodings.normalize_encoding(name).lower() if name.isascii() else ""
    if plain not in _SPELLINGS:
        raise UnknownEncoding(f"There is no encoding called {name[:MAX_ENCODING_CHARS]!r}.")
    try:
        found = codecs.lookup(plain).name
    except LookupError as error:  # of another operating system
        raise UnknownEncoding(f"There is no encoding called {name!r}.") from error
    if not found.startswith(_ENCODINGS):
        raise UnknownEncoding(f"{name!r} is no encoding of text files.")
    return found


def _marked(head: bytes) -> tuple[str | None, int]:
    """The encoding that the first bytes show, and the length of the mark that does it."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    return _unmarked_utf16(head[:4096]), 0


def _unmarked_utf16(head: bytes) -> str | None:
    """UTF-16 without a mark shows by NULs: most of every second byte, and few of the others."""
    even, odd = (half.count(0) / max(len(half), 1) for half in (head[0::2], head[1::2]))
    if max(even, odd) < _MOSTLY or min(even, odd) > 1 - _MOSTLY:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


class Decoder:
    """Decodes one file. `encoding` is what it is read as; it may change to Windows-1252 once."""

    def __init__(self, head: bytes, encoding: str | None = None) -> None:
        refuse_binary(head)
        shown, mark = _marked(head)
        given = None if encoding is None else known_encoding(encoding)
        if given is not None and not (shown or "").startswith(given.removesuffix("-sig")):
            shown, mark = given, 0
        self.encoding = shown or "utf-8"
        self._certain = shown is not None
        self._skip = self._start = mark
        self._codec = codecs.getincrementaldecoder(self.encoding)()

    def texts(self, chunks: Iterable[bytes]) -> Iterator[str]:
        """The text of the file, piece by piece. Raises `BrokenText`."""
        for chunk in chunks:
            for start in range(self._skip, len(chunk), PIECE_BYTES):
                data = chunk[start : start + PIECE_BYTES]
                yield from self._decoded(data, final=False)
                self._start += len(data)
            self._skip = 0
        yield from self._decoded(b"", final=True)

    def _decoded(self, data: bytes, *, final: bool) -> Iterator[str]:
        try:
            text = self._codec.decode(data, final=final)
        except UnicodeDecodeError as error:
            # What the codec held back from the chunk before is at the front of error.object.
            self._start -= len(error.object) - len(data)
            yield from self._otherwise(error, final=final)
            self._start += len(error.object) - len(data)
            return
        self._certain = self._certain or not text.isascii()
        yield from self._without_nul(text)

    def _otherwise(self, error: UnicodeDecodeError, *, final: bool) -> Iterator[str]:
        before = error.object[: error.start]
        if self._certain or not (before.isascii() and _is_legacy(error)):
            yield before.decode(self.encoding)
            raise BrokenText(self._start + error.start, self._fault(error)) from error
        self.encoding, self._certain = LEGACY, True
        self._codec = codecs.getincrementaldecoder(LEGACY)()
        yield from self._decoded(error.object, final=final)

    def _fault(self, error: UnicodeDecodeError) -> str:
        wrong = error.object[error.start : error.start + 1].hex().upper()
        return f"the byte 0x{wrong} is not {self.encoding}"

    def _without_nul(self, text: str) -> Iterator[str]:
        at = text.find("\0")
        if at < 0:
            yield text
            return
        yield text[:at]
        before = len(text[:at].encode(self.encoding))
        raise BrokenText(self._start + before, NUL)


NUL: Final = "a NUL byte stands"


def _is_legacy(error: UnicodeDecodeError) -> bool:
    """Whether Windows-1252 makes sense of the bytes around the first one that isn't UTF-8."""
    around = error.object[max(0, error.start - SAMPLE_BYTES) : error.start + SAMPLE_BYTES]
    return charset_normalizer.from_bytes(around, cp_isolation=["cp1252"]).best() is not None
