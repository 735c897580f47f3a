"""The password policy: length and a blocklist by default, composition rules if somebody asks.

Follows NIST SP 800-63B-4: long passwords, no composition rules, no expiry, and nothing that is
commonly used, expected or made of what an attacker knows about the person. What is guessed first
adds no strength, so the person's own words do not count towards the length, and repeating a unit
does not make it longer.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Final

from jangada.accounts.errors import PasswordRefused
from jangada.auth_settings import PasswordSettings
from jangada.errors import FieldError

_PERSONAL_WORD: Final = 3
"""Shorter parts of a name or an address ("de", "jr") occur in any sentence."""

_COMMON_WORD: Final = 4

_RUNS: Final = ("abcdefghijklmnopqrstuvwxyz", "0123456789", "qwertyuiopasdfghjklzxcvbnm")

_LEET: Final = str.maketrans("013457@$!", "oieastasi")


def prepared(password: str) -> bytes:
    """The bytes that are hashed: NFKC, so that two keyboards that spell ã differently agree."""
    return unicodedata.normalize("NFKC", password).encode()


@functools.cache
def common_passwords() -> frozenset[str]:
    """The blocklist that this distribution ships, in lower case."""
    text = resources.files("jangada.accounts").joinpath("common_passwords.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def _is_common(folded: str) -> bool:
    """Whether it is a common password, perhaps spelt in leet or padded with digits and signs."""
    stripped = folded.strip("0123456789!@#$%&*?.,_- ")
    letters = "".join(character for character in folded if character.isalpha())
    whole = {folded, stripped, letters, stripped.translate(_LEET), folded.translate(_LEET)}
    return any(len(word) >= _COMMON_WORD and word in common_passwords() for word in whole)


def _is_run(folded: str) -> bool:
    """A stretch of the alphabet, of the digits or of the keyboard, in either direction."""
    return any(folded in row * 3 or folded in row[::-1] * 3 for row in _RUNS)


def _repeated_unit(text: str) -> str:
    """The shortest start of the text that, repeated, spells all of it; else the text itself."""
    return text[: (text + text).find(text, 1)]


def _personal_words(name: str, email: str) -> list[str]:
    """What an attacker knows: the parts of the name and of the address, longest first."""
    known = f"{name} {email.rpartition('.')[0]}".casefold()
    words = {*re.split(r"[\W_\d]+", known), *re.split(r"[\s@]+", known)}
    return sorted((word for word in words if len(word) >= _PERSONAL_WORD), key=len, reverse=True)


def _without(text: str, words: list[str]) -> str:
    for word in words:
        text = text.replace(word, "")
    return text


@dataclass(frozen=True, slots=True)
class PasswordPolicy:
    """Which new passwords are accepted. Existing passwords are never checked against it."""

    settings: PasswordSettings

    def check(self, password: str, *, name: str, email: str, pointer: str = "/password") -> None:
        """Raise `PasswordRefused` with every reason there is; the password is in none of them."""
        faults = list(self.faults(password, name=name, email=email))
        if faults:
            errors = [FieldError(pointer, code, detail) for code, detail in faults]
            raise PasswordRefused("The password is not acceptable.", errors=errors)

    def faults(self, password: str, *, name: str, email: str) -> Iterator[tuple[str, str]]:
        """Each reason against the password, as a code and a sentence for the person."""
        size = len(prepared(password))
        if size > self.settings.max_bytes:
            yield "password.too_long", f"Use at most {self.settings.max_bytes} bytes."
            return
        text = prepared(password).decode()
        yield from self._too_short(text)
        if self.settings.blocklist:
            yield from self._guessable(text.casefold(), name=name, email=email)
        yield from self._composition(text)

    def _too_short(self, text: str) -> Iterator[tuple[str, str]]:
        if len(text) < self.settings.min_length:
            yield "password.too_short", f"Use at least {self.settings.min_length} characters."

    def _guessable(self, folded: str, *, name: str, email: str) -> Iterator[tuple[str, str]]:
        unit = _repeated_unit(folded)
        if _is_common(folded) or _is_common(unit):
            yield "password.common", "This is one of the passwords that are guessed first."
        elif _is_run(folded) or (unit != folded and len(unit) < self.settings.min_length):
            yield "password.predictable", "Repetition and keyboard runs add no strength."
        rest = _without(folded, _personal_words(name, email))
        if rest != folded and len(rest) < self.settings.min_length:
            yield (
                "password.personal",
                "Your own name and e-mail address do not count: add more that others don't know.",
            )

    def _composition(self, text: str) -> Iterator[tuple[str, str]]:
        for is_required, kind, has_kind in (
            (self.settings.require_lower, "lower-case letter", str.islower),
            (self.settings.require_upper, "upper-case letter", str.isupper),
            (self.settings.require_digit, "digit", str.isdigit),
            (self.settings.require_symbol, "symbol", _is_symbol),
        ):
            if is_required and not _has(text, has_kind):
                yield (
                    f"password.needs_{kind.split('-', maxsplit=1)[0]}",
                    f"Use at least one {kind}.",
                )


def _is_symbol(character: str) -> bool:
    return not character.isalnum()


def _has(text: str, has_kind: Callable[[str], bool]) -> bool:
    return any(has_kind(character) for character in text)
