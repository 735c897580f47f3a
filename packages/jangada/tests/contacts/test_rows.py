"""Which rows are contacts, in what normal form, and why the others are not."""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jangada.contacts.emails import normalize_email
from jangada.contacts.phones import normalize_phone
from jangada.contacts.reading.columns import NAME_PARTS, Field, Layout, build_layout
from jangada.contacts.reading.records import Batch
from jangada.contacts.reading.rows import COPY_COLUMNS, Limits, RowChecker
from jangada.contacts.reasons import EXPLANATIONS, Reason
from jangada.contacts.texts import MAX_MARKS, clean, is_heaped, search_key

LIMITS = Limits(columns=12, cell_chars=400)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}

type Row = dict[str, Any]


def copied(data: bytes) -> Iterator[Row]:
    """Rows as PostgreSQL reads COPY's text format."""
    for line in data.decode().split("\n")[:-1]:
        cells = [None if cell == r"\N" else _unescaped(cell) for cell in line.split("\t")]
        row: Row = dict(zip(COPY_COLUMNS, cells, strict=True))
        row["line"] = int(row["line"])
        row["attributes"] = json.loads(row["attributes"] or "{}")
        yield row


def _unescaped(cell: str) -> str:
    characters = iter(cell)
    return "".join(ESCAPES[next(characters)] if each == "\\" else each for each in characters)


def check(header: str, *rows: Sequence[str], **mapping: Field) -> tuple[list[Row], list[Row]]:
    layout = build_layout(header.split(","), mapping, max_columns=LIMITS.columns)
    checker = RowChecker(layout, region="BR", limits=LIMITS)
    checked = checker.check(Batch([list(row) for row in rows], range(2, 2 + len(rows))))
    good = list(copied(checked.copy))
    assert len(good) == checked.good
    bad = [
        {"line": each.line, "column": each.column, "reason": each.reason, "cells": each.cells}
        for each in checked.rejects
    ]
    return good, bad


def contact(header: str, *cells: str) -> Row:
    """What becomes of a row that must be good."""
    good, bad = check(header, cells)
    assert bad == []
    return {name: value for name, value in good[0].items() if value not in (None, "", {}, 2)}


def reason(header: str, *cells: str) -> tuple[str, str]:
    """Column and reason of a row that must be rejected."""
    good, bad = check(header, cells)
    assert good == []
    assert bad[0]["cells"] == list(cells)
    return bad[0]["column"], bad[0]["reason"]


def test_a_row_becomes_a_contact_in_normal_form() -> None:
    assert contact(
        "Name,E-mail,Phone,Company,Notes",
        " Ana LIMA ",
        "Ana@Example.COM",
        "11 98765 4321",
        "Acme",
        "x",
    ) == {
        "name": "Ana LIMA",
        "name_key": "ana lima",
        "email": "ana@example.com",
        "phone": "+5511987654321",
        "company": "Acme",
        "attributes": {"Notes": "x"},
    }


@pytest.mark.parametrize(
    ("header", "cells", "column", "why"),
    [
        ("name,email", ["Ana", ""], "email", Reason.MISSING_KEY),
        ("name,phone", ["Ana", "-"], "phone", Reason.MISSING_KEY),
        ("name,email", ["Ana", "ana at example.com"], "email", Reason.INVALID_EMAIL),
        ("name,email", ["Ana", "ana@localhost"], "email", Reason.INVALID_EMAIL),
        ("email,phone", ["a@b.co", "n/a"], "phone", Reason.INVALID_PHONE),
        ("email,phone", ["a@b.co", "12345"], "phone", Reason.INVALID_PHONE),
        ("email,phone", ["a@b.co", "1" * 300], "phone", Reason.INVALID_PHONE),
        ("email,name", ["a@b.co", "x" * 301], "name", Reason.NAME_TOO_LONG),
        (
            "email,first name,last name",
            ["a@b.co", "x" * 200, "y" * 200],
            "first name",
            Reason.NAME_TOO_LONG,
        ),
        ("email,company", ["a@b.co", "x" * 301], "company", Reason.COMPANY_TOO_LONG),
        ("email,notes", ["a@b.co", "x" * 401], "notes", Reason.CELL_TOO_LONG),
        ("email", ["a@b.co", "x" * 401], "", Reason.CELL_TOO_LONG),
        ("email", ["a@b.co", *["x"] * 12], "", Reason.TOO_MANY_CELLS),
        ("email,E-mail 2 - Value", ["", "nope"], "E-mail 2 - Value", Reason.INVALID_EMAIL),
        ("email,mobile,home phone", ["", "", "12"], "home phone", Reason.INVALID_PHONE),
    ],
)
def test_a_row_is_rejected_with_column_and_reason(
    header: str, cells: list[str], column: str, why: Reason
) -> None:
    assert reason(header, *cells) == (column, why)


def test_attributes_have_a_limit_together() -> None:
    layout = build_layout(["email", *(f"a{i}" for i in range(9))], max_columns=10)
    checker = RowChecker(layout, region="BR", limits=Limits(10, 100_000))
    batch = Batch([["a@b.co", *["x" * 9_000] * 9], ["c@d.co", *["x" * 7_000] * 9]], [2, 3])
    checked = checker.check(batch)
    assert [(each.line, each.reason) for each in checked.rejects] == [
        (2, Reason.ATTRIBUTES_TOO_LARGE)
    ]
    assert checked.good == 1


def test_the_first_fault_of_a_row_is_the_one_that_counts() -> None:
    good, bad = check("email,phone", ["no", "no"], ["", "no"])
    assert good == []
    assert [each["reason"] for each in bad] == [Reason.INVALID_EMAIL, Reason.INVALID_PHONE]


def test_rows_that_hold_nothing_do_not_count() -> None:
    good, bad = check("name,email", [], ["", ""], [" ", "\t"], ["Ana", "a@b.co"], [""])
    assert [row["line"] for row in good] == [5]
    assert bad == []


def test_a_batch_of_blank_lines_is_nothing() -> None:
    assert check("name,email", [], []) == ([], [])
    assert check("name,email") == ([], [])


def test_short_rows_are_padded_and_extra_cells_kept() -> None:
    good, bad = check(
        "email,name,notes", ["a@b.co"], ["c@d.co", "C", "n", " x ", "", "y"], ["", "", "", "z"]
    )
    assert [row["attributes"] for row in good] == [
        {},
        {"notes": "n", "column_4": "x", "column_6": "y"},
    ]
    assert [(each["line"], each["reason"]) for each in bad] == [(4, Reason.MISSING_KEY)]


def test_positions_do_not_count_the_columns_of_a_reject_file() -> None:
    row = contact(
        "_line,_column,_reason,email,,", "9", "email", "invalid_email", "a@b.co", "x", "", "y"
    )
    assert row["attributes"] == {"column_2": "x", "column_4": "y"}


def test_names_are_put_together_from_their_parts() -> None:
    header = "Name,First Name,Middle Name,Last Name,email"
    good, _ = check(
        header,
        ["", "Ana", "Maria", "Lima", "a@b.co"],
        ["", "Ana", " ", "Lima", "c@d.co"],
        ["Dr. Ana", "Ana", "", "Lima", "e@f.co"],
    )
    assert [row["name"] for row in good] == ["Ana Maria Lima", "Ana Lima", "Dr. Ana"]


def test_the_first_filled_column_of_a_field_counts_and_the_others_stay() -> None:
    header = "E-mail Address,E-mail 2 Address,Mobile Phone,Home Phone"
    good, _ = check(
        header,
        ["a@b.co", "x@y.co", "", "+55 11 3333-4444"],
        ["", "c@d.co", "11 98765-4321", "(11) 3333-4444"],
    )
    assert [(row["email"], row["phone"], row["attributes"]) for row in good] == [
        ("a@b.co", "+551133334444", {"E-mail 2 Address": "x@y.co"}),
        ("c@d.co", "+5511987654321", {"Home Phone": "(11) 3333-4444"}),
    ]


def test_several_values_in_one_cell_are_taken_apart() -> None:
    row = contact("email,Phone 1 - Value", "a@b.co ::: c@d.co", "11 98765-4321 ::: 11 3333-4444")
    assert row["email"] == "a@b.co"
    assert row["phone"] == "+5511987654321"
    assert row["attributes"] == {
        "email (more)": "c@d.co",
        "Phone 1 - Value (more)": "11 3333-4444",
    }


def test_the_guard_of_formulas_is_taken_off() -> None:
    row = contact("email,name,phone,notes", "a@b.co", "'=1+1", "'+55 11 98765-4321", "''-x")
    assert (row["name"], row["phone"], row["attributes"]) == (
        "=1+1",
        "+5511987654321",
        {"notes": "'-x"},
    )


def test_a_guard_does_not_make_a_cell_too_long() -> None:
    assert contact("email,notes", "a@b.co", "'=" + "x" * 399)["attributes"]["notes"][0] == "="


def test_text_is_composed() -> None:
    assert contact("email,name", "a@b.co", "Joa\u0303o")["name"] == "João"


def test_a_heap_of_combining_marks_stops_nobody() -> None:
    """Composing it takes time by the square of its length: 40 s, in which no thread turns."""
    heap = "a" + "\u0301\u0316" * 1_000_000
    layout = build_layout(["email", "name", f"x{heap}"], max_columns=3)
    checker = RowChecker(layout, region="BR", limits=LIMITS)
    checked = checker.check(
        Batch([["a@b.co", heap, "Joa\u0303o"], ["c@d.co", "e\u0301", ""]], [2, 3])
    )
    assert [each.reason for each in checked.rejects] == [Reason.CELL_TOO_LONG]
    assert [row["name"] for row in copied(checked.copy)] == ["é"]


@given(
    st.lists(
        st.sampled_from(["a", "\u0301" * 15, "\u0316", "\u0f73" * 16, "\uff9e", "é"]), max_size=90
    )
)
def test_only_heaps_of_marks_are_left_as_they_are(parts: list[str]) -> None:
    text = "".join(parts)
    marks = [unicodedata.normalize("NFKD", each)[:1] for each in text]
    runs = "".join("m" if unicodedata.combining(each) else " " for each in marks).split()
    assert is_heaped(text) == any(len(run) > MAX_MARKS for run in runs)
    assert clean(text) == (text if is_heaped(text) else unicodedata.normalize("NFC", text))
    assert clean(clean(text)) == clean(text)


def test_the_kelvin_sign_does_not_take_the_fast_way() -> None:
    assert contact("email", "\u212a@b.co")["email"] == normalize_email("\u212a@b.co")


def test_every_reason_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Reason)


HEADERS = [
    "name,email,phone,company",
    "first name,last name,E-mail 1 - Value,E-mail 2 - Value,mobile,home phone,notes",
    "notes,telefone,,email,x",
]
words = st.text(st.sampled_from("aé'=+-\\\t\n,; x"), max_size=6)
emails = st.sampled_from(
    ["", "a@b.co", "A.B@C.CO ", "no", "é@b.co", "a@b", "a@b.co ::: c@d.co", "'-a@b.co"]
)
phones = st.sampled_from(
    [
        "",
        "11 98765-4321",
        "+351 912 345 678",
        "'+5511987654321",
        "0 11 3333-4444",
        "12",
        "-",
        "a\nb",
    ]
)
wild = st.lists(words | emails | phones, max_size=8)


@given(st.sampled_from(HEADERS), st.lists(wild, max_size=6))
@settings(max_examples=200, deadline=None)
def test_columns_at_a_time_give_what_rows_one_by_one_do(header: str, rows: list[list[str]]) -> None:
    layout = build_layout(header.split(","), max_columns=LIMITS.columns)
    good, bad = check(header, *rows)
    expected = [judged(layout, line, cells) for line, cells in enumerate(rows, start=2)]
    assert good == [row for row in expected if isinstance(row, dict)]
    assert [(each["line"], each["reason"]) for each in bad] == [
        row for row in expected if isinstance(row, tuple)
    ]


def judged(layout: Layout, line: int, cells: list[str]) -> Row | tuple[int, Reason] | None:
    """The same as plainly as can be: one row, no shortcuts."""
    if not any(cell.strip() for cell in cells):
        return None
    width = len(layout.header)
    padded = [clean(cell) for cell in cells] + [""] * (width - len(cells))
    left = {layout.names[i]: padded[i] for i in layout.attributes}
    values: dict[Field, str] = {}
    for field, columns in layout.fields.items():
        filled = [i for i in columns if padded[i]]
        values[field] = padded[filled[0]] if filled else ""
        left |= {layout.names[i]: padded[i] for i in filled[1:]}
    for field in (Field.EMAIL, Field.PHONE):
        first, _, more = values.get(field, "").partition(":::")
        values[field] = first.strip()
        if layout.columns(field):
            left[f"{layout.names[layout.columns(field)[0]]} (more)"] = more.strip()
    left |= {f"column_{width + 1 + i}": cell for i, cell in enumerate(padded[width:])}
    email = normalize_email(values[Field.EMAIL])
    phone = normalize_phone(values[Field.PHONE], "BR")
    if values[Field.EMAIL] and email is None:
        return line, Reason.INVALID_EMAIL
    if values[Field.PHONE].strip(" ().-/[]") and phone is None:
        return line, Reason.INVALID_PHONE
    if email is None and phone is None:
        return line, Reason.MISSING_KEY
    parts = " ".join(filter(None, (values.get(part) for part in NAME_PARTS)))
    name = values.get(Field.NAME) or parts
    return {
        "line": line,
        "email": email,
        "phone": phone,
        "name": name,
        "name_key": search_key(name),
        "company": values.get(Field.COMPANY, ""),
        "attributes": {key: value for key, value in left.items() if value},
    }
