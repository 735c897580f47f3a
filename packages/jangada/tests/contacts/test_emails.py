import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jangada.contacts.emails import is_plain_email, normalize_email

ATOMS = "abcxyz019_.+-!#$%&'*/=?^`{|}~"
LABELS = "abcxn019-"
TOPS = ["com", "br", "test", "local", "localhost", "onion", "arpa", "invalid", "c", "x1", "co-m"]

addresses = st.builds(
    "{}@{}.{}".format,
    st.text(ATOMS, max_size=66),
    st.text(LABELS + ".", max_size=66),
    st.sampled_from(TOPS) | st.text("abc1-", max_size=4),
)


@given(addresses | st.text(max_size=40) | st.emails())
@settings(max_examples=200, deadline=None)
@example("a@b.co")
@example("a@test.example.com")
@example("a@b.test")
@example("a@xn--jngada-6va.com")
@example("a@ab--cd.com")
@example("a@-ab.com")
@example("a@ab-.com")
@example("a@" + "b" * 63 + ".com")
@example("a@" + "b" * 64 + ".com")
@example("a.@b.com")
@example("a@b.com\n")
@example("\u212a@b.com")
def test_the_fast_way_never_disagrees_with_email_validator(text: str) -> None:
    lowered = text.lower()
    if lowered.isascii() and is_plain_email(lowered):
        assert normalize_email(text) == lowered or not text.isascii()
        assert normalize_email(lowered) == lowered


@given(addresses | st.emails() | st.text("aİßéK@.com", max_size=20))
@settings(max_examples=100, deadline=None)
@example("İ@exemplo.com")
@example("JOÃO@EXEMPLO.COM.BR")
def test_the_normal_form_is_a_fixed_point(text: str) -> None:
    normal = normalize_email(text)
    assert normal is None or normalize_email(normal) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Ana.Silva@Exemplo.COM.BR", "ana.silva@exemplo.com.br"),
        ("joão@exemplo.com.br", "joão@exemplo.com.br"),
        ("ana@xn--exmplo-cua.com", "ana@exämplo.com"),
        ("ana at exemplo.com", None),
        ("ana@exemplo", None),
        ("Ana <ana@exemplo.com>", None),
        ("ana@[127.0.0.1]", None),
        ("é" * 100_000 + "@exemplo.com", None),
        ("", None),
    ],
)
def test_addresses_are_normalised(text: str, normal: str | None) -> None:
    assert normalize_email(text) == normal


@pytest.mark.parametrize("text", ["ana.silva@exemplo.com.br", "a+b_c-d@x-y.example.org"])
def test_usual_addresses_take_the_fast_way(text: str) -> None:
    assert is_plain_email(text)
