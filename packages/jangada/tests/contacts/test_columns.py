"""Which column of a file is which field of a contact."""

from cProfile import Profile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jangada.contacts.errors import NoHeader, TooManyColumns, UnknownMapping
from jangada.contacts.exporting import _header_of
from jangada.contacts.reading.columns import Field, Layout, build_layout, recognized, simplified
from jangada.contacts.reading.dialects import declared_delimiter, detect_delimiter
from jangada.contacts.texts import clean, neutralize

GOOGLE = (
    "First Name,Middle Name,Last Name,Nickname,E-mail 1 - Label,E-mail 1 - Value,"
    "E-mail 2 - Value,Phone 1 - Label,Phone 1 - Value,Phone 2 - Value,Organization Name,Notes"
)
GOOGLE_OLD = (
    "Name,Given Name,Additional Name,Family Name,E-mail 1 - Value,Phone 1 - Value,"
    "Organization 1 - Name"
)
OUTLOOK = (
    "First Name,Middle Name,Last Name,Company,Business Phone,Home Phone,Mobile Phone,"
    "E-mail Address,E-mail 2 Address"
)
HUBSPOT = "Record ID,First Name,Last Name,Email,Phone Number,Mobile Phone Number,Company Name"
APPLE = "First,Last,Organization,Phone (Mobile),Phone (Home),Email (Home),Email (Work)"


def layout(header: str, **mapping: Field | None) -> Layout:
    return build_layout(header.split(","), mapping, max_columns=50)


def shown(found: Layout) -> dict[str, list[str]]:
    return {
        str(field): [found.header[index] for index in columns]
        for field, columns in found.fields.items()
    }


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        (
            GOOGLE,
            {
                "email": ["E-mail 1 - Value", "E-mail 2 - Value"],
                "phone": ["Phone 1 - Value", "Phone 2 - Value"],
                "given_name": ["First Name"],
                "middle_name": ["Middle Name"],
                "family_name": ["Last Name"],
                "company": ["Organization Name"],
            },
        ),
        (
            GOOGLE_OLD,
            {
                "email": ["E-mail 1 - Value"],
                "phone": ["Phone 1 - Value"],
                "name": ["Name"],
                "given_name": ["Given Name"],
                "middle_name": ["Additional Name"],
                "family_name": ["Family Name"],
                "company": ["Organization 1 - Name"],
            },
        ),
        (
            OUTLOOK,
            {
                "email": ["E-mail Address", "E-mail 2 Address"],
                "phone": ["Mobile Phone", "Business Phone", "Home Phone"],
                "given_name": ["First Name"],
                "middle_name": ["Middle Name"],
                "family_name": ["Last Name"],
                "company": ["Company"],
            },
        ),
        (
            HUBSPOT,
            {
                "email": ["Email"],
                "phone": ["Phone Number", "Mobile Phone Number"],
                "given_name": ["First Name"],
                "family_name": ["Last Name"],
                "company": ["Company Name"],
            },
        ),
        (
            APPLE,
            {
                "email": ["Email (Work)", "Email (Home)"],
                "phone": ["Phone (Mobile)", "Phone (Home)"],
                "given_name": ["First"],
                "family_name": ["Last"],
                "company": ["Organization"],
            },
        ),
        ("nome,e-mail,telefone", {"email": ["e-mail"], "phone": ["telefone"], "name": ["nome"]}),
        (
            "NOME,SOBRENOME,Endereço de e-mail,Celular,Organização",
            {
                "email": ["Endereço de e-mail"],
                "phone": ["Celular"],
                "given_name": ["NOME"],
                "family_name": ["SOBRENOME"],
                "company": ["Organização"],
            },
        ),
        (
            "Full Name,email_address,Mobile",
            {"email": ["email_address"], "phone": ["Mobile"], "name": ["Full Name"]},
        ),
        ("  E-Mail  ", {"email": ["E-Mail"]}),
    ],
)
def test_the_headers_of_usual_programs_are_known(header: str, fields: dict[str, list[str]]) -> None:
    assert shown(layout(header)) == fields


def test_other_columns_are_attributes_under_their_names() -> None:
    found = layout("email,Notes,,Notes,column_3,E-mail 1 - Label")
    assert [found.names[index] for index in found.attributes] == [
        "Notes",
        "column_3",
        "Notes (2)",
        "column_3 (2)",
        "E-mail 1 - Label",
    ]


def test_the_columns_of_a_reject_file_are_ignored_and_not_counted() -> None:
    found = layout("_line,_column,_reason,email,,x")
    assert [found.names[index] for index in found.attributes] == ["column_2", "x"]
    assert [found.field_of(index) for index in range(4)] == [Field.IGNORE] * 3 + [Field.EMAIL]


def test_a_mapping_overrules_the_names() -> None:
    found = layout(
        "Correo,Email,Nombre,Apellidos,Interno",
        Correo=Field.EMAIL,
        Nombre=Field.GIVEN_NAME,
        Apellidos=Field.FAMILY_NAME,
        Interno=None,
    )
    assert shown(found) == {
        "email": ["Correo"],
        "given_name": ["Nombre"],
        "family_name": ["Apellidos"],
    }
    assert [found.header[index] for index in found.attributes] == ["Email"]


def test_a_mapping_finds_columns_whatever_case_and_accents() -> None:
    assert shown(layout("TELÉFONO", telefono=Field.PHONE)) == {"phone": ["TELÉFONO"]}


def test_a_mapping_can_keep_a_field_as_an_attribute() -> None:
    found = layout("email,phone", phone=Field.ATTRIBUTE)
    assert found.columns(Field.PHONE) == ()
    assert [found.names[index] for index in found.attributes] == ["phone"]


def test_a_mapping_of_an_absent_column_names_it() -> None:
    with pytest.raises(UnknownMapping, match="'Fax'") as raised:
        layout("email,phone", Fax=Field.PHONE)
    assert [fault.pointer for fault in raised.value.errors] == ["?mapping"]


def test_a_mapping_of_many_absent_columns_quotes_some() -> None:
    header = ["email", *(f"x{number}" * 1_000 for number in range(49))]
    mapping = dict.fromkeys((f"é{number}" * 1_000 for number in range(50)), Field.PHONE)
    with pytest.raises(UnknownMapping, match="and 30 more") as raised:
        build_layout(header, mapping, max_columns=50)
    assert len(raised.value.detail) < 4_000
    assert len(raised.value.errors) == 20


def test_a_mapping_names_no_more_columns_than_a_file_has() -> None:
    with pytest.raises(UnknownMapping, match="than the 50 allowed"):
        layout("email", **{f"x{number}": None for number in range(51)})


def test_the_columns_of_a_file_are_looked_at_once_for_all_of_a_mapping() -> None:
    """Each name with each column would take half a minute."""
    header = ["email", *(f"Ação {number}" for number in range(499))]
    mapping = {f"ação {number}": Field.ATTRIBUTE for number in range(499)}
    profile = Profile()
    found = profile.runcall(build_layout, header, mapping, max_columns=500)
    assert len(found.attributes) == 499
    calls = {entry.code: entry.callcount for entry in profile.getstats()}
    assert calls[simplified.__code__] < 5 * len(header)


@pytest.mark.parametrize("header", ["Ana,ana@example.com", "name,company", "", "a;email"])
def test_a_header_without_a_key_is_none(header: str) -> None:
    with pytest.raises(NoHeader):
        layout(header)


def test_a_header_has_its_limit() -> None:
    with pytest.raises(TooManyColumns, match="51 columns; 50"):
        layout(",".join(["email"] * 51))


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).map(clean)
tricky = st.sampled_from(["name", "E-mail", "attributes.x", "attributes.", "=1+1", "'=x", "_line"])


@given(st.sets(names | tricky, max_size=8))
def test_the_header_of_an_export_is_read_as_attributes_of_the_same_names(found: set[str]) -> None:
    attributes = sorted(name for name in found if name)
    header = ["name", "email", "phone", "company", *map(_header_of, attributes)]
    read = build_layout([neutralize(cell) for cell in header], max_columns=50)
    assert [read.names[index] for index in read.attributes] == attributes


@pytest.mark.parametrize("name", ["name", "Telefone", "_line", "E-mail 2 - Value"])
def test_names_of_fields_are_recognized(name: str) -> None:
    assert recognized(name) is not Field.ATTRIBUTE


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("name,email\nAna,a@b.co\n", ","),
        ("nome;e-mail\nAna Lima, Dra.;a@b.co\n", ";"),
        ("name\temail\tnotes\nAna\ta@b.co\tx,y;z\n", "\t"),
        ("name|email\nAna|a@b.co\n", "|"),
        ("email\na@b.co\n", ","),
        ('"nome";"e-mail";"notas"\n"Ana";"a@b.co";"a, b, c"\n', ";"),
        ("\n\nnome;e-mail\nAna;a@b.co\n", ";"),
        ("x;y\n1,5;2\n3,5;4\n", ";"),
    ],
)
def test_the_delimiter_is_found(text: str, delimiter: str) -> None:
    assert detect_delimiter(text.splitlines(keepends=True)) == delimiter


def test_a_sample_that_is_no_csv_has_the_usual_delimiter() -> None:
    assert detect_delimiter(['"' + "x" * 200_000]) == ","


@pytest.mark.parametrize(
    ("line", "delimiter"),
    [
        ("sep=;\r\n", ";"),
        ("SEP=,\n", ","),
        ('"sep=|"\n', "|"),
        ("sep=\t\r\n", "\t"),
        ("sep=x\n", None),
        ("sep=;;\n", None),
        ("name;email\n", None),
    ],
)
def test_excel_declares_the_delimiter(line: str, delimiter: str | None) -> None:
    assert declared_delimiter(line) == delimiter
