"""Whole columns of cells: what an import does to each cell, done by C code for many at a time."""

import unicodedata
from collections.abc import Sequence
from typing import Final

from jangada.contacts.phones import MAX_PHONE_CHARS, SEPARATORS
from jangada.contacts.texts import is_heaped, normalized, search_key, unguard

type Column = Sequence[str]

_COPY_ESCAPES: Final = (("\\", r"\\"), ("\n", r"\n"), ("\r", r"\r"), ("\t", r"\t"))


def cleaned(column: Column) -> list[str]:
    """Each cell as `texts.clean` has it."""
    cells = [*map(str.strip, column)]
    together = "".join(cells)
    if "'" in together:
        cells = [unguard(cell).strip() for cell in cells]
    if not together.isascii():
        compose = normalized if is_heaped(together) else unicodedata.normalize
        cells = [compose("NFC", cell) for cell in cells]
    return cells


def squeezed(column: Column) -> list[str]:
    """Each cell without the separators of phone numbers; over-long ones as they are."""
    together = "\n".join(column)
    if together.count("\n") == len(column) - 1 and not longer(column, MAX_PHONE_CHARS):
        return together.translate(SEPARATORS).split("\n")
    return [cell.translate(SEPARATORS) if len(cell) <= MAX_PHONE_CHARS else cell for cell in column]


def search_keys(column: Column) -> list[str]:
    """Each cell as `texts.search_key` has it, which treats a line break as any other character."""
    together = "\n".join(column)
    if is_heaped(together) or together.count("\n") != len(column) - 1:
        return [*map(search_key, column)]
    return search_key(together).split("\n")


def escaped(column: Column) -> Column:
    """Each cell as COPY's text format has it."""
    together = "".join(column)
    for character, code in _COPY_ESCAPES:
        if character in together:
            column = [cell.replace(character, code) for cell in column]
    return column


def longer(column: Column, limit: int) -> list[int]:
    """The rows whose cell has more characters than `limit`."""
    if max(map(len, column), default=0) <= limit:
        return []
    return [index for index, cell in enumerate(column) if len(cell) > limit]


def first_filled(columns: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    """Per row the first cell with content, and the columns without the cells that were taken."""
    chosen = [*columns[0]]
    left = [[""] * len(chosen)]
    for column in columns[1:]:
        pairs = [*zip(chosen, column, strict=True)]
        left.append([cell if taken else "" for taken, cell in pairs])
        chosen = [taken or cell for taken, cell in pairs]
    return chosen, left


def joined(columns: Sequence[Column]) -> list[str]:
    """Per row the cells with content, with a space between them."""
    return [" ".join(filter(None, cells)) for cells in zip(*columns, strict=True)]
