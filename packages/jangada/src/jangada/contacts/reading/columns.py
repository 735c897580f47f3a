"""Columns: which column of a file is which field of a contact.

Header names of Google Contacts (both forms), Outlook, Apple, HubSpot and plain English and
Portuguese are known; a mapping overrules them; every other column is kept as an attribute under its
own name. Where several columns hold the same field (a second e-mail address), the first that is
filled counts, and the others are kept as attributes.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, chain, count
from typing import Final

from jangada.contacts.errors import NoHeader, TooManyColumns, UnknownMapping
from jangada.contacts.texts import MAX_ATTRIBUTE_NAME_CHARS, clean, normalized
from jangada.errors import FieldError

ATTRIBUTE_PREFIX: Final = "attributes."
"""In front of an attribute's name in an export, where the name alone would be taken for a field."""

REJECT_COLUMNS: Final = ("_line", "_column", "_reason")
"""The columns that a reject file has in front; ignored when it is imported again."""

QUOTED_NAMES: Final = 20
QUOTED_CHARS: Final = 60
"""How many names an error quotes, and how much of each."""


class Field(StrEnum):
    """What a column may hold. `ignore` drops it."""

    NAME = "name"
    GIVEN_NAME = "given_name"
    MIDDLE_NAME = "middle_name"
    FAMILY_NAME = "family_name"
    EMAIL = "email"
    PHONE = "phone"
    COMPANY = "company"
    ATTRIBUTE = "attribute"
    IGNORE = "ignore"


NAME_PARTS: Final = (Field.GIVEN_NAME, Field.MIDDLE_NAME, Field.FAMILY_NAME)
_NAMES: Final = frozenset({Field.NAME, *NAME_PARTS})
_VALUES: Final[tuple[Field, ...]] = (
    Field.EMAIL,
    Field.PHONE,
    Field.NAME,
    *NAME_PARTS,
    Field.COMPANY,
)

_KNOWN: Final[Mapping[Field, str]] = {
    Field.NAME: "name, full name, display name, contact name, contact, nome, nome completo,"
    " nome de exibicao, nome do contato, contato, cliente",
    Field.GIVEN_NAME: "given name, first name, first, firstname, forename, primeiro nome,"
    " nome proprio",
    Field.MIDDLE_NAME: "additional name, middle name, middle, middlename, nome do meio,"
    " segundo nome",
    Field.FAMILY_NAME: "family name, last name, last, lastname, surname, sobrenome, ultimo nome",
    Field.EMAIL: "email, e mail, email address, e mail address, mail, primary email,"
    " email 1 value, e mail 1 value, email 1, e mail 1, work email, email work, personal email,"
    " email home, email other, correio eletronico, correio electronico, endereco de email,"
    " endereco de e mail, email principal, e mail principal, email pessoal, e mail pessoal,"
    " email comercial, e mail comercial, email 2 value, e mail 2 value, email 2 address,"
    " e mail 2 address, email 2, e mail 2, email 3 value, e mail 3 value, email 3 address,"
    " e mail 3 address, email 3, e mail 3",
    Field.PHONE: "phone, phone number, telephone, telephone number, tel, primary phone,"
    " mobile phone, mobile, mobile number, mobile phone number, cell phone, cell, cellphone,"
    " phone mobile, phone iphone, iphone, whatsapp, whatsapp number, phone 1 value, phone 1,"
    " telefone, telefone 1, celular, telemovel, fone, telefone celular, telefone movel,"
    " numero de telefone, telefone principal, phone main, main phone, phone work, work phone,"
    " business phone, telefone comercial, telefone do trabalho, phone home, home phone,"
    " telefone residencial, telefone de casa, phone other, other phone, phone 2 value, phone 2,"
    " telefone 2, home phone 2, business phone 2, phone 3 value, phone 3",
    Field.COMPANY: "company, company name, organization, organisation, organization name,"
    " organization 1 name, employer, account name, associated company, empresa,"
    " nome da empresa, organizacao, companhia",
    Field.IGNORE: "",
}


def simplified(header: str) -> str:
    """A header without case, accents and punctuation: how it is compared."""
    letters = normalized("NFKD", header).casefold()
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(re.findall(r"[^\W_]+", plain))


_RANKED: Final[Mapping[str, tuple[Field, int]]] = {
    name.strip(): (field, rank)
    for field, names in _KNOWN.items()
    for rank, name in enumerate(names.split(","))
    if name.strip()
}


def recognized(header: str) -> Field:
    """The field that a header names by itself."""
    if header in REJECT_COLUMNS:
        return Field.IGNORE
    return _RANKED.get(simplified(header), (Field.ATTRIBUTE, 0))[0]


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one file: which hold fields (best first), and which are attributes.

    `names` is the header with every name made unique and none empty. Positions in such names don't
    count the columns of a reject file, so that a corrected row means what it meant.
    """

    header: tuple[str, ...]
    names: tuple[str, ...]
    fields: Mapping[Field, tuple[int, ...]]
    attributes: tuple[int, ...]

    def columns(self, field: Field) -> tuple[int, ...]:
        return self.fields.get(field, ())

    @property
    def positions(self) -> int:
        """How many columns the file has, without those of a reject file."""
        return sum(cell not in REJECT_COLUMNS for cell in self.header)

    def field_of(self, index: int) -> Field:
        named = (field for field, columns in self.fields.items() if index in columns)
        return next(named, Field.ATTRIBUTE if index in self.attributes else Field.IGNORE)


def build_layout(
    cells: Sequence[str], mapping: Mapping[str, Field | None] | None = None, *, max_columns: int
) -> Layout:
    """What each column of a header is. Raises `NoHeader`, `TooManyColumns`, `UnknownMapping`."""
    if len(cells) > max_columns:
        raise TooManyColumns(f"The file has {len(cells)} columns; {max_columns} are allowed.")
    if len(mapping or ()) > max_columns:
        raise UnknownMapping(f"The mapping names more columns than the {max_columns} allowed.")
    header = tuple(map(clean, cells))
    chosen = _assigned(header, mapping or {})
    fields = {field: tuple(_ranked(header, chosen, field)) for field in _VALUES if field in chosen}
    if not fields.keys() & {Field.EMAIL, Field.PHONE}:
        raise NoHeader(
            "The first row names neither an e-mail nor a phone column. "
            "Add a header, or say by `mapping` which column is which."
        )
    attributes = tuple(i for i, field in enumerate(chosen) if field is Field.ATTRIBUTE)
    return Layout(header, tuple(_unique(header)), fields, attributes)


def _assigned(header: Sequence[str], mapping: Mapping[str, Field | None]) -> list[Field]:
    """The field of each column, by the mapping first and by its own name second."""
    given = _resolved(header, mapping)
    claimed = set(given.values())
    claimed |= _NAMES if claimed & _NAMES else set()
    found = [given.get(i) or recognized(name) for i, name in enumerate(header)]
    kept = [
        Field.ATTRIBUTE if i not in given and field in claimed and field in _VALUES else field
        for i, field in enumerate(found)
    ]
    if Field.FAMILY_NAME in kept and Field.GIVEN_NAME not in kept:
        # "Nome" beside "Sobrenome" is the given name.
        return [Field.GIVEN_NAME if field is Field.NAME else field for field in kept]
    return kept


def _resolved(header: Sequence[str], mapping: Mapping[str, Field | None]) -> dict[int, Field]:
    exact = _places(header)
    alike = _places(map(simplified, header)) if mapping.keys() - exact.keys() else {}
    resolved: dict[int, Field] = {}
    missing = []
    for name, field in mapping.items():
        columns = exact.get(clean(name)) or alike.get(simplified(name), [])
        resolved |= dict.fromkeys(columns, field or Field.IGNORE)
        missing += [] if columns else [name]
    if missing:
        raise UnknownMapping(
            f"The file has no column {_quoted(missing)}. Its columns are {_quoted(header)}.",
            errors=[
                FieldError("?mapping", UnknownMapping.code, f"no column {_quoted([name])}")
                for name in missing[:QUOTED_NAMES]
            ],
        )
    return resolved


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    """Where each of the names stands."""
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    return places


def _quoted(names: Sequence[str]) -> str:
    """The names for an error, as many and as much of each as can be read."""
    shown = [repr(name[:QUOTED_CHARS]) for name in names[:QUOTED_NAMES]]
    more = len(names) - len(shown)
    return ", ".join([*shown, *([f"and {more:,} more"] if more else [])])


def _ranked(header: Sequence[str], chosen: Iterable[Field], field: Field) -> list[int]:
    """The columns of a field, best first; those that only the mapping names come in front."""
    columns = [i for i, one in enumerate(chosen) if one is field]

    def rank(index: int) -> int:
        known, position = _RANKED.get(simplified(header[index]), (field, -1))
        return position if known is field else -1

    return sorted(columns, key=rank)


def _unique(header: Sequence[str]) -> list[str]:
    """A name for each column, no two the same; those that the prefix marks keep theirs."""
    positions = accumulate(int(cell not in REJECT_COLUMNS) for cell in header)
    names = [_own_name(cell, place) for cell, place in zip(header, positions, strict=True)]
    marked = {name for name, cell in zip(names, header, strict=True) if _is_marked(cell)}
    seen: set[str] = set()
    for index, name in enumerate(names):
        taken = seen if _is_marked(header[index]) else seen | marked
        others = (f"{name} ({number})" for number in count(2))
        names[index] = next(each for each in chain([name], others) if each not in taken)
        seen.add(names[index])
    return names


def _is_marked(cell: str) -> bool:
    return cell.startswith(ATTRIBUTE_PREFIX)


def _own_name(cell: str, position: int) -> str:
    own = cell.removeprefix(ATTRIBUTE_PREFIX).strip()[:MAX_ATTRIBUTE_NAME_CHARS].strip()
    return own or f"column_{position}"
