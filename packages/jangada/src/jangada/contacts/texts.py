"""Cells: how text is cleaned on its way in and made harmless on its way out.

A cell that begins like a formula is run by spreadsheets when the file is opened, and so is what
follows a semicolon, a tab or a line break within a cell: where the decimal sign is a comma, Excel
cuts our files there. `neutralize` puts an apostrophe in front of such beginnings, `unguard` takes
it off again; together they lose nothing. Cells that are a phone in E.164 or a plain number begin
with a sign too and are left alone: no program runs them.
"""

import re
import unicodedata
from itertools import takewhile
from typing import Final, Literal

MAX_NAME_CHARS: Final = 300
MAX_COMPANY_CHARS: Final = 300
MAX_ATTRIBUTE_NAME_CHARS: Final = 200
MAX_ATTRIBUTES_CHARS: Final = 65_536

MAX_MARKS: Final = 30
"""What Unicode's stream-safe text format bears in a row; no language needs more."""

_PERHAPS_MARK: Final = re.compile("[\u0300-\U0010ffff]")
_SIGNS: Final = "=+\\-@\uff1d\uff0b\uff0d\uff20"
_BEGINNING: Final = r"(?:^|(?<=[;|\t\r\n]))"
_FORMULA: Final = re.compile(rf"{_BEGINNING}(?='*+[{_SIGNS}\t\r\n])")
_GUARD: Final = re.compile(rf"{_BEGINNING}'(?='*+[{_SIGNS}\t\r\n])")
_SUSPECT: Final = re.compile(rf"[;|\t\r\n]'*[{_SIGNS}\t\r\n]")
_PLAIN_NUMBER: Final = re.compile(r"[+\-]?[0-9]+(?:[.,][0-9]+)*")
_MARKS: Final = re.compile("[\u0300-\u036f]+")


def neutralize(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    if not (_FORMULA.match(text) or _SUSPECT.search(text)) or _PLAIN_NUMBER.fullmatch(text):
        return text
    return _FORMULA.sub("'", text)


def unguard(text: str) -> str:
    """The text without the apostrophes of `neutralize`."""
    return _GUARD.sub("", text) if "'" in text else text


def clean(text: str) -> str:
    """The text as it is stored: no white space around it, no guard, composed characters (NFC)."""
    return normalized("NFC", unguard(text.strip()).strip())


def search_key(name: str) -> str:
    """A name as it is searched: without regard to case and accents."""
    return _MARKS.sub("", normalized("NFKD", name.casefold()))


def normalized(form: Literal["NFC", "NFKD"], text: str) -> str:
    """The normal form; text with more than `MAX_MARKS` combining marks in a row stays as it is.

    Python sorts such marks in quadratic time and stops all threads for it: 40 s for one cell.
    """
    return text if is_heaped(text) else unicodedata.normalize(form, text)


def is_heaped(text: str) -> bool:
    """Whether more than `MAX_MARKS` combining marks follow one another somewhere."""
    step = MAX_MARKS + 1
    # So many marks in a row can't hide between letters that stand so far apart.
    if not _PERHAPS_MARK.search(text[::step]):
        return False
    return any(_marks_around(text, at) > MAX_MARKS for at in range(0, len(text), step))


def _marks_around(text: str, at: int) -> int:
    before = text[max(0, at - MAX_MARKS) : at][::-1]
    after = text[at : at + MAX_MARKS + 1]
    if not _is_mark(text[at]):
        return 0
    return sum(sum(1 for _ in takewhile(_is_mark, side)) for side in (before, after))


def _is_mark(letter: str) -> bool:
    """Whether a letter, taken apart, begins with a combining mark."""
    return unicodedata.combining(unicodedata.normalize("NFKD", letter)[0]) > 0
