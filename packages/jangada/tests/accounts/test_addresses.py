"""E-mail addresses: many spellings, one account."""

import string
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jangada.accounts.addresses import parse
from jangada.accounts.errors import EmailInvalid


@pytest.mark.parametrize(
    ("spelling", "email", "key"),
    [
        ("Ana@Example.COM", "Ana@example.com", "ana@example.com"),
        ("  ana@example.com\n", "ana@example.com", "ana@example.com"),
        ("ana+news@example.com", "ana+news@example.com", "ana+news@example.com"),
        ("ＡＮＡ@example.com", "ANA@example.com", "ana@example.com"),
        ("ana＠example.com", "ana@example.com", "ana@example.com"),
        ("JOÃO@exemplo.com.br", "JOÃO@exemplo.com.br", "joão@exemplo.com.br"),
        ("João@exemplo.com.br", "João@exemplo.com.br", "joão@exemplo.com.br"),
        ("groß@example.com", "groß@example.com", "gross@example.com"),
        ("ana@XN--BCHER-KVA.example", "ana@bücher.example", "ana@bücher.example"),
        ("ana@BÜCHER.example", "ana@bücher.example", "ana@bücher.example"),
        ("ΣΊΣΥΦΟΣ@example.gr", "ΣΊΣΥΦΟΣ@example.gr", "σίσυφοσ@example.gr"),
    ],
)
def test_a_spelling_has_an_address_and_a_key(spelling: str, email: str, key: str) -> None:
    address = parse(spelling)
    assert (address.email, address.key) == (email, key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ana",
        "ana@",
        "@example.com",
        "ana@localhost",
        "ana@example",
        "a b@example.com",
        "Ana <ana@example.com>",
        '"ana lima"@example.com',
        "ana@[127.0.0.1]",
        "ana@example..com",
        "ana@-example.com",
        "ana\x00@example.com",
        "ana@example.com\r\nBcc: all@example.com",
        "ana@" + "a" * 250 + ".com",
        "ana@example.com" * 40,
    ],
)
def test_what_is_no_address_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(EmailInvalid) as refused:
        parse(text)
    assert refused.value.errors[0].pointer == "/email"
    said = f"{refused.value.detail} {refused.value.errors}"
    assert not text or text not in said


LOCAL = st.text(string.ascii_letters + string.digits + "._+-", min_size=1, max_size=30)
UNICODE_LOCAL = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20)
DOMAIN = st.sampled_from(["example.com", "exemplo.com.br", "bücher.example", "日本語.jp"])


def key_of(text: str) -> str:
    try:
        return parse(text).key
    except EmailInvalid:
        assume(condition=False)
        raise


@given(LOCAL, DOMAIN)
def test_letter_case_never_makes_another_account(local: str, domain: str) -> None:
    key = key_of(f"{local}@{domain}")
    assert key_of(f"{local.upper()}@{domain.upper()}") == key
    assert key_of(f"{local.swapcase()}@{domain.title()}") == key


@given(st.one_of(LOCAL, UNICODE_LOCAL), DOMAIN)
def test_the_key_of_a_key_is_itself(local: str, domain: str) -> None:
    key = key_of(f"{local}@{domain}")
    assert unicodedata.is_normalized("NFKC", key)
    assert key_of(key) == key


@given(UNICODE_LOCAL, DOMAIN, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_composition_never_makes_another_account(local: str, domain: str, form: str) -> None:
    text = f"{local}@{domain}"
    key = key_of(text)
    assert key_of(unicodedata.normalize(form, text)) == key  # type: ignore[arg-type]


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse(text)
    except EmailInvalid:
        return
    assert address.email.count("@") == 1
    assert address.key.count("@") == 1
