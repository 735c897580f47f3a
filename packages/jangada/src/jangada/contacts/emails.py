"""E-mail addresses in their one normal form: what email-validator says, in lower case.

Mailbox names are case-sensitive on paper and nowhere in practice, so one address is one contact
whatever its letters' case. The result is a fixed point: normalising it again gives the same.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import email_validator

MAX_EMAIL_CHARS: Final = 320
"""More than any valid address has; email-validator takes long to refuse what is far longer."""


def normalize_email(text: str) -> str | None:
    """The normal form, or None when email-validator refuses the address; asks no name server."""
    if "@" not in text or len(text) > MAX_EMAIL_CHARS:
        return None  # "@" is the usual fault in a file; email-validator takes 50 µs to say so
    try:
        address = _checked(text)
        return address if address.isascii() else _checked(address)
    except email_validator.EmailNotValidError:
        return None


def _checked(text: str) -> str:
    return email_validator.validate_email(text, check_deliverability=False).normalized.lower()


def _plain_pattern(special_names: Iterable[str]) -> str:
    atom = r"[a-z0-9_!#$%&'*+\-/=?^`{|}~]++"
    label = r"(?!..--)[a-z0-9]++(?:-++[a-z0-9]++)*+"
    # The length also bounds every label to 63 octets and the local part to 64.
    shape = rf"^(?=.{{6,64}}$){atom}(?:\.{atom})*+@(?:{label}\.)++[a-z]{{2,}}"
    reserved = "".join(rf"(?<![.@]{re.escape(name)})" for name in special_names)
    return rf"{shape}${reserved}"


_PLAIN: Final = _plain_pattern(email_validator.SPECIAL_USE_DOMAIN_NAMES)
_PLAIN_LINES: Final = re.compile(_PLAIN, re.MULTILINE)

is_plain_email: Final = re.compile(_PLAIN).fullmatch
"""Matches lower-case addresses that are their own normal form, without asking email-validator.

A match is a proof, no match says nothing. A property test holds it to `normalize_email`.
"""


def unclear_emails(column: Sequence[str]) -> list[int]:
    """The rows whose cell is neither empty nor a match of `is_plain_email`."""
    left = _PLAIN_LINES.sub("", "\n".join(column)).split("\n")
    if len(left) != len(column):
        return [index for index, cell in enumerate(column) if cell and not is_plain_email(cell)]
    return [index for index, cell in enumerate(left) if cell]
