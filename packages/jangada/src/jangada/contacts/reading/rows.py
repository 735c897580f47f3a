"""Rows: which of them are contacts, in what normal form, and why the others are not.

The hot loop of an import, so it works on whole columns of a batch: what most cells need (strip,
lower case, one regular expression) is done by C code over the column, and only the cells that this
leaves open are looked at one by one. What comes out is text for COPY, a whole batch at a time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from jangada.contacts.emails import normalize_email, unclear_emails
from jangada.contacts.phones import normalize_phone, phone_plan
from jangada.contacts.reading.cells import (
    Column,
    cleaned,
    escaped,
    first_filled,
    joined,
    longer,
    search_keys,
    squeezed,
)
from jangada.contacts.reading.columns import NAME_PARTS, Field, Layout
from jangada.contacts.reading.records import Batch
from jangada.contacts.reasons import Reason
from jangada.contacts.texts import (
    MAX_ATTRIBUTES_CHARS,
    MAX_COMPANY_CHARS,
    MAX_NAME_CHARS,
    unguard,
)

COPY_COLUMNS: Final = ("line", "email", "phone", "name", "name_key", "company", "attributes")
NULL: Final = r"\N"
SEVERAL: Final = ":::"
"""Google puts several addresses into one cell with this between them."""


def rest_name(column: str) -> str:
    """The attribute that has what of a cell with several values comes after the first."""
    return f"{column} (more)"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one row may hold, and how many lines a file may have."""

    columns: int
    cell_chars: int
    lines: int = 5_000_000


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that can't be used: where it stands, what is wrong, and its cells as they came."""

    line: int
    column: str
    reason: Reason
    cells: list[str]


@dataclass(frozen=True, slots=True)
class Checked:
    """One batch after validation.

    `copy` is one line per good row in COPY's text format, with the columns `COPY_COLUMNS`.
    """

    good: int
    copy: bytes
    rejects: list[Reject]


@dataclass(slots=True)
class _Work:
    """A batch on its way through the checks.

    `overflow` has the cells beyond the header, `extras` the values that no field has room for,
    `faults` the first fault of a row.
    """

    lines: Sequence[int]
    rows: list[list[str]]
    columns: list[Column]
    overflow: dict[int, list[str]]
    extras: dict[str, Column] = field(default_factory=dict)
    faults: dict[int, tuple[str, Reason]] = field(default_factory=dict)

    def fault(self, index: int, column: str, reason: Reason) -> None:
        self.faults.setdefault(index, (column, reason))

    def sound(self, indexes: Iterable[int]) -> Iterator[int]:
        """Those of the rows that have no fault yet: only the first one of a row is told."""
        return (index for index in indexes if index not in self.faults)


def _fitted(batch: Batch, width: int) -> _Work:
    """Blank lines dropped, short rows padded, long rows cut with the rest kept as overflow."""
    lines, rows, overflow = batch.lines, batch.rows, dict[int, list[str]]()
    fitted = rows
    if {*map(len, rows)} != {width}:
        lines = [line for line, row in zip(lines, rows, strict=True) if row]
        rows = [row for row in rows if row]
        overflow = {i: row[width:] for i, row in enumerate(rows) if any(row[width:])}
        fitted = [row[:width] + [""] * (width - len(row)) for row in rows]
    columns: list[Column] = [*zip(*fitted, strict=True)] if rows else [()] * width
    return _Work(lines, rows, columns, overflow)


class RowChecker:
    """Checks the rows of one file."""

    def __init__(self, layout: Layout, *, region: str, limits: Limits) -> None:
        self._layout = layout
        self._names = layout.names
        self._region = region
        self._plan = phone_plan(region)
        self._limits = limits

    def check(self, batch: Batch) -> Checked:
        work = _fitted(batch, len(self._layout.header))
        self._refuse_excess(work)
        emails, phones = self._emails(work), self._phones(work)
        names = self._texts(work, MAX_NAME_CHARS, Reason.NAME_TOO_LONG, Field.NAME, *NAME_PARTS)
        companies = self._texts(work, MAX_COMPANY_CHARS, Reason.COMPANY_TOO_LONG, Field.COMPANY)
        attributes = self._attributes(work)
        blank = self._refuse_keyless(work, emails, phones)
        columns: list[Column] = [
            [*map(str, work.lines)],
            [email or NULL for email in emails],
            [phone or NULL for phone in phones],
            escaped(names),
            escaped(search_keys(names)),
            escaped(companies),
            [text or NULL for text in escaped(attributes)],
        ]
        return _sorted_out(work, blank, columns)

    def _refuse_excess(self, work: _Work) -> None:
        limit = self._limits.cell_chars
        for name, column in zip(self._names, work.columns, strict=True):
            for index in longer(column, limit):
                if len(unguard(column[index])) > limit:
                    work.fault(index, name, Reason.CELL_TOO_LONG)
        for index, cells in work.overflow.items():
            if len(work.rows[index]) > self._limits.columns:
                work.fault(index, "", Reason.TOO_MANY_CELLS)
            elif longer(cells, limit):
                work.fault(index, "", Reason.CELL_TOO_LONG)

    def _emails(self, work: _Work) -> Column:
        cells = self._first_values(work, Field.EMAIL)
        emails = [*map(str.lower, cells)]
        unclear = {*unclear_emails(emails)}
        if not "".join(cells).isascii():
            # Lower case can turn other letters into ASCII (the Kelvin sign).
            unclear |= {index for index, cell in enumerate(cells) if not cell.isascii()}
        for index in work.sound(unclear):
            emails[index] = normalize_email(cells[index]) or ""
            if not emails[index]:
                work.fault(index, self._origin(work, index, Field.EMAIL), Reason.INVALID_EMAIL)
        return emails

    def _phones(self, work: _Work) -> Column:
        cells = self._first_values(work, Field.PHONE)
        if not any(cells):
            return cells
        bare = squeezed(cells)
        found = [*map(self._plan.plain, bare)]
        phones = [f"+{self._plan.code}{match['nsn']}" if match else "" for match in found]
        unsure = [i for i, match in enumerate(found) if match is None and bare[i]]
        for index in work.sound(unsure):
            phones[index] = (
                self._plan.e164(bare[index]) or normalize_phone(cells[index], self._region) or ""
            )
            if not phones[index]:
                work.fault(index, self._origin(work, index, Field.PHONE), Reason.INVALID_PHONE)
        return phones

    def _texts(
        self, work: _Work, limit: int, reason: Reason, whole: Field, *parts: Field
    ) -> Column:
        """A text field: the column that holds the whole of it, else its parts with spaces."""
        texts = self._chosen(work, whole)
        if any(self._layout.columns(part) for part in parts):
            together = joined([self._chosen(work, part) for part in parts])
            texts = [text or other for text, other in zip(texts, together, strict=True)]
        for index in longer(texts, limit):
            work.fault(index, self._origin(work, index, whole, *parts), reason)
        return texts

    def _refuse_keyless(self, work: _Work, emails: Column, phones: Column) -> set[int]:
        """Faults rows without a key; returns those that hold nothing at all, which don't count."""
        keys = enumerate(zip(emails, phones, strict=True))
        keyless = [index for index, (email, phone) in keys if not email and not phone]
        blank = {index for index in keyless if not any(map(str.strip, work.rows[index]))}
        for index in keyless:
            name = self._origin(work, index, Field.EMAIL, Field.PHONE)
            work.fault(index, name, Reason.MISSING_KEY)
        return blank

    def _origin(self, work: _Work, index: int, *fields: Field) -> str:
        """The name of the column that a row's value comes from."""
        columns = [column for each in fields for column in self._layout.columns(each)]
        filled = (column for column in columns if work.columns[column][index].strip())
        first = next(filled, columns[0] if columns else None)
        return "" if first is None else self._names[first]

    def _chosen(self, work: _Work, what: Field) -> list[str]:
        """The first filled cell among the columns of a field; the others become attributes."""
        columns = self._layout.columns(what)
        if not columns:
            return [""] * len(work.rows)
        chosen, left = first_filled([cleaned(work.columns[column]) for column in columns])
        for column, cells in zip(columns, left, strict=True):
            if any(cells):
                work.extras[self._names[column]] = cells
        return chosen

    def _first_values(self, work: _Work, what: Field) -> list[str]:
        cells = self._chosen(work, what)
        if SEVERAL not in "".join(cells):
            return cells
        split = [cell.partition(SEVERAL) for cell in cells]
        name = rest_name(self._names[self._layout.columns(what)[0]])
        work.extras[name] = [more.strip() for _, _, more in split]
        return [first.strip() for first, _, _ in split]

    def _attributes(self, work: _Work) -> Column:
        """A JSON object per row, or "" where it would be empty."""
        named = {
            self._names[column]: cleaned(work.columns[column])
            for column in self._layout.attributes
            if any(work.columns[column])
        } | work.extras
        if not named and not work.overflow:
            return [""] * len(work.rows)
        rows = zip(*named.values(), strict=True) if named else [()] * len(work.rows)
        texts = []
        for index, cells in enumerate(rows):
            found = {name: cell for name, cell in zip(named, cells, strict=True) if cell}
            found |= self._overflowing(work.overflow.get(index, ()))
            texts.append(orjson.dumps(found).decode() if found else "")
        for index in longer(texts, MAX_ATTRIBUTES_CHARS):
            work.fault(index, "", Reason.ATTRIBUTES_TOO_LARGE)
        return texts

    def _overflowing(self, cells: Sequence[str]) -> Mapping[str, str]:
        first = self._layout.positions + 1
        named = zip((f"column_{first + i}" for i in range(len(cells))), cleaned(cells), strict=True)
        return {name: cell for name, cell in named if cell}


def _sorted_out(work: _Work, blank: set[int], columns: list[Column]) -> Checked:
    lines = [*map("\t".join, zip(*columns, strict=True))]
    for index in sorted(work.faults.keys() | blank, reverse=True):
        del lines[index]
    rejects = [
        Reject(work.lines[index], column, reason, work.rows[index])
        for index, (column, reason) in sorted(work.faults.items())
        if index not in blank
    ]
    return Checked(len(lines), "\n".join([*lines, ""]).encode(), rejects)
