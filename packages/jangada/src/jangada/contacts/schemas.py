"""What the verbs on contacts are given, the filter of contact lists, and the job of an import."""

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Select, or_

from jangada.contacts.errors import UnknownEncoding, UnknownRegion
from jangada.contacts.models import Contact, begins_with, is_named
from jangada.contacts.phones import is_region
from jangada.contacts.reading import columns
from jangada.contacts.reading.decoding import known_encoding
from jangada.contacts.texts import (
    MAX_ATTRIBUTE_NAME_CHARS,
    MAX_COMPANY_CHARS,
    MAX_NAME_CHARS,
    clean,
    search_key,
)
from jangada.crud import FilterText, without_nul
from jangada.jobs.schemas import JobArgs

MAX_ATTRIBUTES: Final = 512
MAX_VALUE_CHARS: Final = 10_000


def _storable(text: str) -> str:
    """Cleaned as a file's cells are."""
    return clean(without_nul(text))


def _not_blank(text: str) -> str:
    if not text:
        raise ValueError("must not be blank")
    return text


def _region(region: str) -> str:
    if not is_region(region):
        raise ValueError(f"is no country with a calling code ({UnknownRegion.code})")
    return region


def _encoding(name: str) -> str:
    try:
        return known_encoding(name)
    except UnknownEncoding as error:
        raise ValueError(error.detail) from error


type Name = Annotated[str, StringConstraints(max_length=MAX_NAME_CHARS), AfterValidator(_storable)]
type Company = Annotated[
    str, StringConstraints(max_length=MAX_COMPANY_CHARS), AfterValidator(_storable)
]
type Address = Annotated[str, StringConstraints(max_length=320), AfterValidator(_storable)]
type Phone = Annotated[str, StringConstraints(max_length=250), AfterValidator(_storable)]
type AttributeName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_ATTRIBUTE_NAME_CHARS),
    AfterValidator(_storable),
    AfterValidator(_not_blank),
]
type AttributeValue = Annotated[
    str, StringConstraints(max_length=MAX_VALUE_CHARS), AfterValidator(_storable)
]


class ContactCreate(BaseModel):
    """A new contact: at least an e-mail address or a phone."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Name = ""
    email: Address | None = Field(None, description="Any letter case; stored in lower case.")
    phone: Phone | None = Field(
        None, description="As people write it; stored in E.164. Your default region counts."
    )
    company: Company = ""
    attributes: Annotated[dict[AttributeName, AttributeValue], Field(max_length=MAX_ATTRIBUTES)] = (
        Field(default_factory=dict, description="Anything else, as text. Blank values are dropped.")
    )


class ContactPatch(BaseModel):
    """Changes to a contact (JSON merge patch): null takes a value away."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Name | None = None
    email: Address | None = None
    phone: Phone | None = None
    company: Company | None = None
    attributes: (
        Annotated[dict[AttributeName, AttributeValue | None], Field(max_length=MAX_ATTRIBUTES)]
        | None
    ) = None


class ContactFilter(BaseModel):
    """Which contacts a list shows."""

    q: FilterText | None = Field(
        None,
        min_length=1,
        max_length=300,
        description="The beginning of a name, an e-mail address or a phone (in E.164).",
    )
    email: FilterText | None = Field(
        None, max_length=320, description="Exactly this e-mail address."
    )
    phone: FilterText | None = Field(
        None, max_length=32, description="Exactly this phone, in E.164."
    )
    company: FilterText | None = Field(None, max_length=300, description="Exactly this company.")

    def __call__(self, scope: Select[Contact]) -> Select[Contact]:
        if self.q is not None:
            scope = scope.where(
                or_(
                    is_named(search_key(clean(self.q))),
                    begins_with(Contact.email, self.q.strip().lower()),
                    begins_with(Contact.phone, self.q.strip()),
                )
            )
        if self.email is not None:
            scope = scope.where(Contact.email == self.email.strip().lower())
        if self.phone is not None:
            scope = scope.where(Contact.phone == self.phone.strip())
        if self.company is not None:
            scope = scope.where(Contact.company == clean(self.company))
        return scope


type Delimiter = Literal[",", ";", "\t", "|"]


class OnConflict(StrEnum):
    """What becomes of a row whose contact exists: its filled cells are taken over, or nothing."""

    UPDATE = "update"
    SKIP = "skip"


class ImportOptions(BaseModel):
    """How a file is read and merged. What is None is found out from the file."""

    model_config = ConfigDict(frozen=True)

    delimiter: Delimiter | None = None
    encoding: Annotated[str, StringConstraints(max_length=40), AfterValidator(_encoding)] | None = (
        None
    )
    mapping: dict[str, columns.Field | None] | None = None
    default_region: Annotated[str, AfterValidator(_region)]
    on_conflict: OnConflict = OnConflict.UPDATE
    validate_only: bool = False


class ImportContacts(JobArgs):
    """Import a stored file into the tenant's contacts."""

    kind: ClassVar[str] = "contacts.import"
    queue: ClassVar[str] = "imports"
    kept: ClassVar[bool] = True

    file_id: UUID
    options: ImportOptions


class Statistics(BaseModel):
    """What became of a file's rows: `rows` is the sum of the six counts after it."""

    rows: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    duplicates: int = 0
    rejected: int = 0
    rejected_by_reason: dict[str, int] = Field(default_factory=dict)
    seconds: float = 0
