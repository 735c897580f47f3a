"""Phone numbers in E.164, as phonenumbers has them, and a fast way to the same answers.

phonenumbers takes about 60 µs a number, a minute for a million. `PhonePlan` compiles the same
metadata into one regular expression per country, follows the same steps, and answers only where the
outcome is certain; everything else is asked of phonenumbers and remembered for a while. A property
test holds the two to each other for every region.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, Self

import phonenumbers
from phonenumbers.phonemetadata import PhoneMetadata, PhoneNumberDesc

MAX_PHONE_CHARS: Final = 250
_MIN_DIGITS: Final = 5
_NEVER: Final = r"(?!)"

SEPARATORS: Final = str.maketrans("", "", " ().-/[]\u00a0\u2010\u2011\u2012\u2013\u2014\u2015")
"""What phonenumbers drops wherever it stands, when the rest is digits after at most one plus."""

_TYPES: Final = (
    "premium_rate",
    "toll_free",
    "shared_cost",
    "voip",
    "personal_number",
    "pager",
    "uan",
    "voicemail",
    "fixed_line",
)


def is_region(region: str) -> bool:
    return region in phonenumbers.SUPPORTED_REGIONS


def normalize_phone(text: str, region: str) -> str | None:
    """E.164, or None when phonenumbers finds no valid number. E.164 has no extensions."""
    # What is longer isn't remembered either: a file of long cells would fill the memory for good.
    return None if len(text) > MAX_PHONE_CHARS else _asked(text, region)


@lru_cache(maxsize=8_192)
def _asked(text: str, region: str) -> str | None:
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _described(desc: PhoneNumberDesc | None) -> str | None:
    """A pattern that matches, up to the end, what phonenumbers' `_is_number_matching_desc` does."""
    if desc is None or not desc.national_number_pattern:
        return None
    lengths = "|".join(rf"\d{{{length}}}" for length in desc.possible_length if length > 0)
    if desc.possible_length and not lengths:
        return None
    at_length = rf"(?=(?:{lengths})\Z)" if lengths else ""
    return rf"{at_length}(?:{desc.national_number_pattern})\Z"


def _typed(metadata: PhoneMetadata) -> str | None:
    """A pattern for numbers whose type phonenumbers knows: these are the valid ones."""
    descriptions = [getattr(metadata, name) for name in _TYPES]
    if not metadata.same_mobile_and_fixed_line_pattern:
        descriptions.append(metadata.mobile)
    general = _described(metadata.general_desc)
    types = [pattern for pattern in map(_described, descriptions) if pattern is not None]
    return rf"(?={general})(?:{'|'.join(types)})" if general is not None and types else None


@dataclass(frozen=True)
class Numbering:
    """How the national numbers of one region begin, as far as parsing needs it."""

    general: re.Pattern[str]
    lengths: frozenset[int]
    prefix: re.Pattern[str] | None
    rule: str | None

    @classmethod
    def of(cls, metadata: PhoneMetadata) -> Self:
        general = metadata.general_desc or PhoneNumberDesc()
        prefix = metadata.national_prefix_for_parsing
        return cls(
            general=re.compile(general.national_number_pattern or _NEVER),
            lengths=frozenset(general.possible_length),
            prefix=re.compile(prefix) if prefix else None,
            rule=metadata.national_prefix_transform_rule,
        )

    def has_prefix(self, digits: str) -> bool:
        return self.prefix is not None and self.prefix.match(digits) is not None

    def stripped(self, digits: str) -> str | None:
        """The digits without the national prefix (the 0 of 011); None when that is uncertain."""
        found = self.prefix.match(digits) if self.prefix is not None else None
        if found is None or self.prefix is None:
            return digits
        if self.rule and found.groups() and found.groups()[-1] is not None:
            rest = self.prefix.sub(self.rule, digits, count=1)
        else:
            rest = digits[found.end() :]
        certain = len(rest) in self.lengths and self.general.fullmatch(rest)
        return rest if certain else None


class Country:
    """One calling code, over all its regions."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]
        self.numbering = Numbering.of(self._metadata(self.regions[0]))
        self.valid = "(?:" + "|".join(self._alternatives()) + ")"
        self.is_valid = re.compile(self.valid).match

    def _metadata(self, region: str) -> PhoneMetadata:
        return _known(PhoneMetadata.metadata_for_region_or_calling_code(self.code, region))

    def _alternatives(self) -> Iterator[str]:
        """Patterns for valid national numbers: the first region that claims a number decides."""
        claimed = ""
        for region in self.regions:
            metadata = self._metadata(region)
            typed = _typed(metadata)
            # Where a code has one region only, phonenumbers doesn't look at leading digits.
            leading = metadata.leading_digits if len(self.regions) > 1 else None
            yield claimed + (rf"(?={leading})" if leading else "") + (typed or _NEVER)
            if leading:
                claimed += rf"(?!{leading})"

    def e164(self, national: str | None) -> str | None:
        if national is None or not self.is_valid(national):
            return None
        return f"+{self.code}{national}"


class PhonePlan:
    """How numbers are read that come without a country code: those of one default region."""

    def __init__(self, region: str) -> None:
        metadata = _known(PhoneMetadata.metadata_for_region(region, None))
        self.country = _country(phonenumbers.country_code_for_valid_region(region))
        self.code = str(self.country.code)
        self.numbering = Numbering.of(metadata)
        self.dialling = re.compile(metadata.international_prefix or _NEVER)
        self.plain = self._plain_pattern().match

    def _plain_pattern(self) -> re.Pattern[str]:
        """Squeezed numbers that are the country's code and the group `nsn`: most of a file."""
        own, main = self.numbering.prefix, self.country.numbering.prefix
        unclear = [self.code, self.dialling.pattern, *([own.pattern] if own else [])]
        guards = "".join(rf"(?!{pattern})" for pattern in unclear)
        strippable = rf"(?!{main.pattern})" if main else ""
        return re.compile(rf"(?:\+{self.code}|{guards})(?P<nsn>{strippable}{self.country.valid})")

    def e164(self, squeezed: str) -> str | None:
        """E.164 of a number without separators; None when uncertain: ask `normalize_phone`."""
        digits = squeezed.removeprefix("+")
        if len(digits) < _MIN_DIGITS or not (digits.isascii() and digits.isdigit()):
            return None
        if digits != squeezed:
            return _international(digits)
        dialled = self.dialling.match(digits)
        if dialled is not None:
            rest = digits[dialled.end() :]
            return None if rest.startswith("0") else _international(rest)
        if digits.startswith(self.code):
            return self._with_or_without_code(digits)
        return self.country.e164(self.numbering.stripped(digits))

    def _with_or_without_code(self, digits: str) -> str | None:
        """Numbers that begin like the country code: it goes where only that makes sense of them."""
        general, rest = self.numbering.general, digits[len(self.code) :]
        if general.fullmatch(digits) and len(digits) <= max(self.numbering.lengths):
            return self.country.e164(self.numbering.stripped(digits))
        if self.numbering.has_prefix(rest) or self.country.numbering.has_prefix(rest):
            return None
        return self.country.e164(rest) if general.fullmatch(rest) else None


def _international(digits: str) -> str | None:
    for size in (1, 2, 3):
        code = digits[:size]
        if (
            not code.startswith("0")
            and int(code or "0") in phonenumbers.COUNTRY_CODE_TO_REGION_CODE
        ):
            country = _country(int(code))
            return country.e164(country.numbering.stripped(digits[size:]))
    return None


def _known(metadata: PhoneMetadata | None) -> PhoneMetadata:
    if metadata is None:
        raise LookupError("phonenumbers has no metadata for a region that it lists")
    return metadata


@cache
def _country(code: int) -> Country:
    return Country(code)


@cache
def phone_plan(region: str) -> PhonePlan:
    return PhonePlan(region)
