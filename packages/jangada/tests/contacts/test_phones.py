import tracemalloc

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from jangada.contacts.phones import SEPARATORS, is_region, normalize_phone, phone_plan

REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)
FORMATS = [
    PhoneNumberFormat.E164,
    PhoneNumberFormat.INTERNATIONAL,
    PhoneNumberFormat.NATIONAL,
    PhoneNumberFormat.RFC3966,
]


def reference(text: str, region: str) -> str | None:
    return normalize_phone(text, region)


def fast(text: str, region: str) -> tuple[str | None, ...]:
    """Both fast ways: the plain pattern and the plan's steps."""
    plan = phone_plan(region)
    squeezed = text.translate(SEPARATORS)
    plain = plan.plain(squeezed)
    return (
        plan.e164(squeezed),
        None if plain is None else f"+{plan.country.code}{plain['nsn']}",
    )


def examples_of(region: str) -> list[phonenumbers.PhoneNumber]:
    found = (
        phonenumbers.example_number_for_type(region, kind) for kind in PhoneNumberType.values()
    )
    return [number for number in found if number is not None]


@st.composite
def written_numbers(draw: st.DrawFn) -> tuple[str, str]:
    """A number as people write it, with some digits changed, and a default region."""
    home = draw(st.sampled_from(REGIONS))
    region = draw(st.sampled_from([home, home, draw(st.sampled_from(REGIONS))]))
    number = draw(st.sampled_from(examples_of(home)))
    text = phonenumbers.format_number(number, draw(st.sampled_from(FORMATS)))
    text = text.removeprefix("tel:")
    if draw(st.booleans()):
        text = text.removeprefix("+")
    prefix = draw(st.sampled_from(["", "", "0", "00", "1", "011", "+", "(", "9", "0015", "90"]))
    text = prefix + text
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text) - 1))
        new = draw(st.sampled_from([*"0123456789", " ", "-", ".", "(", "/", "", "00", "\u00a0"]))
        text = text[:at] + new + text[at + draw(st.integers(0, 1)) :]
    return text, region


@given(written_numbers())
@settings(max_examples=200, deadline=None)
@example(("011987654321", "BR"))
@example(("55 11 98765-4321", "BR"))
@example(("55 98765-4321", "BR"))
@example(("5598765432", "BR"))
@example(("1 416 555 0123", "CA"))
@example(("8 912 345-67-89", "RU"))
@example(("02 1234 5678", "IT"))
@example(("+39 02 1234 5678", "BR"))
@example(("07781 234567", "GB"))
@example(("+44 (0)20 7946 0958", "BR"))
def test_the_fast_way_never_disagrees_with_phonenumbers(case: tuple[str, str]) -> None:
    text, region = case
    for answer in fast(text, region):
        assert answer is None or answer == reference(text, region)


@given(st.text(alphabet="0123456789+ ()-./[]\u00a0x#;,~*", max_size=24), st.sampled_from(REGIONS))
@settings(max_examples=100, deadline=None)
def test_the_fast_way_never_disagrees_on_junk(text: str, region: str) -> None:
    for answer in fast(text, region):
        assert answer is None or answer == reference(text, region)


@pytest.mark.parametrize("region", REGIONS)
def test_every_example_number_is_read_alike_in_every_format(region: str) -> None:
    for number in examples_of(region):
        for style in FORMATS[:3]:
            text = phonenumbers.format_number(number, style)
            for answer in fast(text, region):
                assert answer is None or answer == reference(text, region)


@pytest.mark.parametrize("region", ["BR", "US", "CA", "GB", "DE", "FR", "PT", "ES", "IN", "AU"])
def test_usual_numbers_take_the_fast_way(region: str) -> None:
    number = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
    assert number is not None
    for style in FORMATS[:3]:
        text = phonenumbers.format_number(number, style)
        assert fast(text, region)[0] == reference(text, region)


@given(st.sampled_from(REGIONS).flatmap(lambda region: st.sampled_from(examples_of(region))))
@settings(deadline=None)
def test_e164_is_a_fixed_point(number: phonenumbers.PhoneNumber) -> None:
    e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    normal = reference(e164, "BR")
    assert normal is None or reference(normal, "US") == normal


@pytest.mark.parametrize(
    ("text", "e164"),
    [
        ("(11) 98765-4321", "+5511987654321"),
        ("+55 11 3333-4444", "+551133334444"),
        ("Tel. 11 98765-4321", "+5511987654321"),
        ("11 98765-4321 ext. 12", "+5511987654321"),
        ("5.511987654321E+12", None),
        ("123", None),
        ("", None),
        ("0" * 300, None),
    ],
)
def test_phones_are_normalised(text: str, e164: str | None) -> None:
    assert normalize_phone(text, "BR") == e164


def test_cells_that_are_too_long_for_a_phone_are_not_kept() -> None:
    """In a worker that reads file after file they would stay for good."""
    tracemalloc.start()
    try:
        for number in range(200):
            assert normalize_phone(f"{number:05}" + "x" * 30_000, "BR") is None
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_regions_are_known() -> None:
    assert is_region("BR")
    assert not is_region("XX")
