"""E-mail addresses as sign-in names: one person, one key, in whatever spelling.

The key is blind to letter case, to the width and composition of characters (NFKC) and to whether a
domain is written in Unicode or in punycode. Mail goes to the address as it was given: folding
writes ß as ss, which may be somebody else's mailbox.
"""

import unicodedata
from dataclasses import dataclass
from typing import Final

from email_validator import EmailNotValidError, validate_email

from jangada.accounts.errors import EmailInvalid
from jangada.errors import FieldError

MAX_CHARACTERS: Final = 254
"""RFC 5321's limit for an address; longer input is refused before it is parsed."""


@dataclass(frozen=True, slots=True)
class Address:
    """An e-mail address to send to, and the key that is unique over the platform."""

    email: str
    key: str


def parse(text: str) -> Address:
    """The address that the text spells. Raises `EmailInvalid`; asks no server."""
    given = unicodedata.normalize("NFKC", text.strip()[: MAX_CHARACTERS + 1])
    try:
        valid = validate_email(given, check_deliverability=False)
    except EmailNotValidError:
        # The library's message quotes the input, and this error may be logged.
        fault = FieldError(
            "/email", EmailInvalid.code, "This is not an address that mail can be sent to."
        )
        raise EmailInvalid("The e-mail address is not valid.", errors=[fault]) from None
    return Address(valid.normalized, f"{_folded(valid.local_part)}@{valid.domain}")


def _folded(local_part: str) -> str:
    """Unicode's NFKC_Casefold: folding undoes composition and composition undoes folding."""
    once = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", local_part).casefold())
    return unicodedata.normalize("NFKC", once.casefold())
