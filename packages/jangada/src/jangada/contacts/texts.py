"""Cells: how text is cleaned on its way in and made harmless on its way out.

A cell that begins like a formula is run by spreadsheets when the file is opened. `neutralize` puts
an apostrophe in front of it, `unguard` takes it off again; together they lose nothing. Phones in
E.164 and plain numbers begin with a sign too and are left alone: no program runs them.
"""

import re
import unicodedata
from typing import Final

MAX_NAME_CHARS: Final = 300
MAX_COMPANY_CHARS: Final = 300
MAX_ATTRIBUTE_NAME_CHARS: Final = 200
MAX_ATTRIBUTES_CHARS: Final = 65_536

_FORMULA: Final = re.compile(r"[=+\-@\t\r]")
_PLAIN_NUMBER: Final = re.compile(r"[+\-]?[0-9]+(?:[.,][0-9]+)*")
_MARKS: Final = re.compile("[\u0300-\u036f]+")
is_guarded: Final = re.compile(r"'+[=+\-@\t\r]").match


def neutralize(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    if is_guarded(text) or (_FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text)):
        return f"'{text}"
    return text


def unguard(text: str) -> str:
    """The text without the apostrophe of `neutralize`."""
    return text[1:] if is_guarded(text) else text


def clean(text: str) -> str:
    """The text as it is stored: no white space around it, no guard, composed characters (NFC)."""
    return unicodedata.normalize("NFC", unguard(text.strip()).strip())


def search_key(name: str) -> str:
    """A name as it is searched: without regard to case and accents."""
    return _MARKS.sub("", unicodedata.normalize("NFKD", name.casefold()))
