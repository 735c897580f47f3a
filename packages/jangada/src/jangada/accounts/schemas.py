"""Inputs and results of the verbs, and who a request speaks for."""

import unicodedata
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, ClassVar, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
)

from jangada.crud import NO_DEFAULT
from jangada.jobs.schemas import JobArgs

MAX_PASSWORD_CHARACTERS: Final = 4096
"""Longer input is refused unread; how long a new password may be is for the policy to say."""

MAX_REFRESH_TOKEN_CHARACTERS: Final = 512


def _plain_text(text: str) -> str:
    """Composed (NFC), without control characters, which PostgreSQL and terminals would act on."""
    composed = unicodedata.normalize("NFC", text)
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in composed):
        raise ValueError("must not contain control characters")
    return composed


def _whole_characters(secret: SecretStr) -> SecretStr:
    """JSON can spell half of a character (a lone surrogate), which no encoding can carry."""
    if any(unicodedata.category(character) == "Cs" for character in secret.get_secret_value()):
        raise ValueError("must be Unicode text")
    return secret


type PersonName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    Field(description="How the person is called."),
    AfterValidator(_plain_text),
]
type Email = Annotated[str, Field(min_length=3, max_length=254, description="Any letter case.")]
type Password = Annotated[
    SecretStr,
    Field(min_length=1, max_length=MAX_PASSWORD_CHARACTERS),
    AfterValidator(_whole_characters),
]


EXAMPLE_EMAIL: Final = "ana@example.com"
EXAMPLE_PASSWORD: Final = "the tide goes out at six"  # noqa: S105 - an example in the documents
EXAMPLE_NEW_PASSWORD: Final = "another tide, another raft"  # noqa: S105 - as above
EXAMPLE_REFRESH_TOKEN: Final = "jgr_AQGiB8-zM3PKk_45mtvY58Y…"  # noqa: S105 - as above


def _documented(**example: str) -> ConfigDict:
    """An unknown field is an error, input never shows in a message, and there is an example."""
    return ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [dict(example)]},
    )


class Registration(BaseModel):
    """A new account."""

    model_config = _documented(email=EXAMPLE_EMAIL, name="Ana Lima", password=EXAMPLE_PASSWORD)

    email: Email
    name: PersonName
    password: Password


class Credentials(BaseModel):
    """What a person signs in with."""

    model_config = _documented(email=EXAMPLE_EMAIL, password=EXAMPLE_PASSWORD)

    email: Email
    password: Password


class RefreshGrant(BaseModel):
    """A refresh token, as it was given out last."""

    model_config = _documented(refresh_token=EXAMPLE_REFRESH_TOKEN)

    refresh_token: Annotated[SecretStr, Field(max_length=MAX_REFRESH_TOKEN_CHARACTERS)]


class ProfilePatch(BaseModel):
    """Changes to one's own profile (JSON merge patch).

    The address is not among them yet: a new one has to be verified by mail first.
    """

    model_config = _documented(name="Ana Lima da Silva")

    name: Annotated[PersonName, NO_DEFAULT] = ""


class PasswordChange(BaseModel):
    """The current password as proof, and its successor."""

    model_config = _documented(current_password=EXAMPLE_PASSWORD, new_password=EXAMPLE_NEW_PASSWORD)

    current_password: Password
    new_password: Password


class PasswordProof(BaseModel):
    """The current password, asked for where the action cannot be undone."""

    model_config = _documented(password=EXAMPLE_PASSWORD)

    password: Password


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request speaks for: one person, in one tenant, through one session."""

    user_id: UUID
    tenant_id: UUID
    session_id: UUID
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class Client:
    """Where a sign-in comes from, as far as the delivery knows."""

    address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client is given at sign-in and refresh. It has no representation in logs."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: timedelta


class EraseTenant(JobArgs):
    """Erase everything that a tenant owns, and then the tenant."""

    kind: ClassVar[str] = "accounts.erase_tenant"


class PasswordChangedNotice(JobArgs):
    """Tell a person that their password was changed. The address is looked up when it is sent."""

    kind: ClassVar[str] = "accounts.password_changed_notice"

    user_id: UUID
    changed_at: AwareDatetime
