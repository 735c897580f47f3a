"""Exports: harmless in a spreadsheet, and imported again they change nothing."""

import csv
import io
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jangada.contacts import exporting, service
from jangada.contacts.errors import TooManyAttributes
from jangada.contacts.exporting import export_contacts, list_attribute_names
from jangada.contacts.schemas import ContactCreate, ContactFilter
from jangada.contacts.texts import clean, neutralize, unguard

if TYPE_CHECKING:
    from packages.jangada.tests.contacts.conftest import Importer

pytestmark = pytest.mark.anyio

EVERYONE = ContactFilter()
CUTS = r"[;|\t\r\n]"


async def export(importer: "Importer", filter: ContactFilter = EVERYONE) -> str:
    database, tenant_id = importer.runtime.database, importer.tenant_id
    names = await list_attribute_names(database, tenant_id, filter, max_columns=512)
    parts = [part async for part in export_contacts(database, tenant_id, filter, names)]
    return b"".join(parts).decode()


cells = st.text(st.sampled_from("'=+-@\t\r\n;|1a. é\u0301\uff1d"), max_size=8)


@given(cells)
@settings(max_examples=300)
def test_the_guard_loses_nothing(text: str) -> None:
    assert unguard(neutralize(text)) == text


@given(cells)
@settings(max_examples=300)
def test_cleaned_text_survives_the_way_out_and_in(text: str) -> None:
    stored = clean(text)
    assert clean(neutralize(stored)) == stored


@given(cells)
@settings(max_examples=300)
def test_no_cell_begins_like_a_formula_wherever_a_program_cuts_it(text: str) -> None:
    cell = neutralize(text)
    parts = [cell] if text == cell and cell.strip("+-.0123456789") == "" else re.split(CUTS, cell)
    for part in parts:
        is_number = part.strip("0123456789.") in {"+", "-"} and part[1:]
        assert not part.startswith(("=", "@", "\uff1d"))
        assert not part.startswith(("+", "-")) or (parts == [cell] and is_number)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+5511987654321", "+5511987654321"),
        ("-3.14", "-3.14"),
        ("-1,234.5", "-1,234.5"),
        ("-2+3", "'-2+3"),
        ("+", "'+"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-٣", "'-٣"),
        ("'=x", "''=x"),
        ("'quoted'", "'quoted'"),
        ("a=b", "a=b"),
        ("x;=1+1", "x;'=1+1"),
        ("x;y", "x;y"),
        ("a\n-b", "a\n'-b"),
        ("a\t'@b", "a\t''@b"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("-5;-5", "'-5;'-5"),
    ],
)
def test_formulas_get_a_guard_and_numbers_none(text: str, cell: str) -> None:
    assert neutralize(text) == cell


async def test_an_export_has_a_column_per_attribute(importer: "Importer") -> None:
    await importer(
        'name,email,phone,company,Notes,Other\n"Ana ""A"", L",a@b.co,11987654321,=Acme,x,\n'
        "Rui,,+351912345678,,,-y\n"
    )
    assert await export(importer) == (
        "name,email,phone,company,Notes,Other\r\n"
        '"Ana ""A"", L",a@b.co,+5511987654321,\'=Acme,x,\r\n'
        "Rui,,+351912345678,,,'-y\r\n"
    )


async def test_an_export_of_nothing_has_a_header(importer: "Importer") -> None:
    assert await export(importer) == "name,email,phone,company\r\n"


async def test_an_export_can_be_filtered(importer: "Importer") -> None:
    await importer("name,email,x,y\nAna,a@b.co,1,\nRui,r@b.co,,2\n")
    assert await export(importer, ContactFilter(q="r")) == (
        "name,email,phone,company,y\r\nRui,r@b.co,,,2\r\n"
    )


async def test_an_export_goes_on_over_pages(
    importer: "Importer", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "ROWS_AT_ONCE", 7)
    rows = [f"a{number}@b.co" for number in range(21)]
    await importer("email\n" + "\n".join([*rows, *["bad"] * 15]))
    exported = list(csv.DictReader(io.StringIO(await export(importer))))
    assert sorted(row["email"] for row in exported) == sorted(rows)


async def test_an_export_of_many_columns_goes_on_over_short_pages(importer: "Importer") -> None:
    """Each page is made by a thread; none has more cells than can be made in a moment."""
    header = ",".join(["email", *(f"a{number}" for number in range(400))])
    rows = "".join(f"a{number}@b.co,{number}\n" for number in range(100))
    await importer(f"{header}\n{rows}")
    database, tenant_id = importer.runtime.database, importer.tenant_id
    names = [f"a{number}" for number in range(400)]
    parts = [part async for part in export_contacts(database, tenant_id, EVERYONE, names)]
    assert [part.count(b"\r\n") for part in parts] == [1, 25, 25, 25, 25]


async def test_an_export_has_no_more_columns_than_an_import_may(importer: "Importer") -> None:
    await importer("email,x\na@b.co,1\n")
    await importer("email,y,z\nc@d.co,1,2\n")
    database, tenant_id = importer.runtime.database, importer.tenant_id
    with pytest.raises(TooManyAttributes, match="more than 2 different"):
        await list_attribute_names(database, tenant_id, EVERYONE, max_columns=6)
    assert await list_attribute_names(database, tenant_id, EVERYONE, max_columns=7) == [*"xyz"]
    some = ContactFilter(q="c")
    assert await list_attribute_names(database, tenant_id, some, max_columns=6) == [*"yz"]


async def test_importing_an_export_changes_nothing(importer: "Importer") -> None:
    contacts = [
        {"email": "a@b.co", "name": "=1+1", "company": "'=x", "attributes": {"n": "-1\n+2"}},
        {"phone": "+5511987654321", "name": "-5", "attributes": {"name": "x", "E-mail": "y"}},
        {"email": "c@d.co", "phone": "+5511987654321", "name": 'a "b", c'},
        {"email": "é@exémplo.com", "attributes": {"attributes.x": "1", "x": "2", "_line": "3"}},
        {"email": "e@f.co", "name": "a\r\nb\tc", "attributes": {"=x": "a ::: b", "'=x": "'"}},
        {"phone": "+12015550123", "company": "a:::b", "attributes": {"column_5": "v"}},
        {"email": "i@j.co", "name": "x;=1", "attributes": {"a|-b": "c\n@d;'=e"}},
        {"email": "g@h.co", "attributes": {"Long": "=" + "x" * 9_999}},
    ]
    async with importer.runtime.database.transaction(importer.tenant_id) as session:
        for values in contacts:
            new = ContactCreate.model_validate(values)
            await service.create_contact(session, importer.tenant_id, new, region="BR")
    exported = await export(importer)
    assert await importer.counts(exported) == {"unchanged": len(contacts)}
    assert await export(importer) == exported
    other = importer.runtime.database
    async with other.transaction(importer.tenant_id) as session:
        for contact in await importer.contacts():
            await service.delete_contact(session, importer.tenant_id, contact.id)
    assert await importer.counts(exported) == {"inserted": len(contacts)}
    assert sorted((await export(importer)).splitlines()) == sorted(exported.splitlines())
