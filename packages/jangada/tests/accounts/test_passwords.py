"""The password policy, and the pool that hashes."""

import asyncio
import secrets
import string
import unicodedata
from threading import Event

import pytest
from argon2 import PasswordHasher as Argon2
from argon2.exceptions import VerifyMismatchError
from hypothesis import assume, given
from hypothesis import strategies as st

from jangada.accounts.errors import HashingBusy, PasswordRefused
from jangada.accounts.hashing import PasswordHasher
from jangada.accounts.passwords import PasswordPolicy, common_passwords, prepared
from jangada.auth_settings import HashSettings, PasswordSettings
from jangada.testing import PATIENCE, eventually

GOOD = "correct horse battery staple"
CHEAP = HashSettings(memory_kib=8192, time_cost=1, workers=1, queue=1)
POLICY = PasswordPolicy(PasswordSettings())


def codes(
    password: str,
    *,
    name: str = "Ana Lima",
    email: str = "ana.lima@jangadeiros.org",
    policy: PasswordPolicy = POLICY,
) -> set[str]:
    return {code for code, _ in policy.faults(password, name=name, email=email)}


def test_the_blocklist_is_long_and_names_its_source() -> None:
    assert len(common_passwords()) >= 3_000
    assert all(word == word.lower() for word in common_passwords())


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "  spaces count, wherever  ",
        "uma jangada ao entardecer",
        "прекрасный вечер у моря",
        "夕暮れの海へ出る小さな帆の筏と風",
        "0d2d4d4ea9d0f1c2b3",
        "my ana sails out with the evening tide",
    ],
)
def test_a_long_sentence_is_accepted(password: str) -> None:
    assert codes(password) == set()


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("fourteen chars", "password.too_short"),
        ("ãéîõü" * 2, "password.too_short"),
        ("x1" + "y" * 1023, "password.too_long"),
        ("é" * 513, "password.too_long"),
        ("passwordpassword", "password.common"),
        ("PassWord1234567890", "password.common"),
        ("!!!!!!!password!!!!!!!", "password.common"),
        ("p-a-s-s-w-o-r-d-2026", "password.common"),
        ("P@ssw0rd20262026", "password.common"),
        ("senha123senha123", "password.common"),
        ("1qaz2wsx3edc4rfv", "password.common"),
        ("letmeinletmeinletmein", "password.common"),
        ("aaaaaaaaaaaaaaaaaaaa", "password.predictable"),
        ("xqzk xqzk xqzk xqzk ", "password.predictable"),
        ("abcdefghijklmnopqrst", "password.predictable"),
        ("zyxwvutsrqponmlkjih", "password.predictable"),
        ("lkjhgfdsapoiuytrewq", "password.predictable"),
        ("78901234567890123456", "password.predictable"),
        ("ana.lima@jangadeiros.org", "password.personal"),
        ("AnaLima-2026-2026", "password.personal"),
        ("lima jangadeiros 1", "password.personal"),
    ],
)
def test_what_is_guessed_first_is_refused(password: str, code: str) -> None:
    assert code in codes(password)


def test_the_blocklist_can_be_switched_off() -> None:
    lenient = PasswordPolicy(PasswordSettings(blocklist=False))
    assert codes("passwordpassword", policy=lenient) == set()


@pytest.mark.parametrize(
    ("rule", "lacking", "having"),
    [
        ("lower", GOOD.upper(), GOOD),
        ("upper", GOOD, GOOD.title()),
        ("digit", GOOD, GOOD + " 7"),
        ("symbol", GOOD.replace(" ", "x"), GOOD),
    ],
)
def test_composition_rules_exist_and_are_off(rule: str, lacking: str, having: str) -> None:
    strict = PasswordPolicy(PasswordSettings.model_validate({f"require_{rule}": True}))
    assert codes(lacking) == set()
    assert codes(lacking, policy=strict) == {f"password.needs_{rule}"}
    assert codes(having, policy=strict) == set()


def test_a_refusal_names_every_reason_and_never_the_password() -> None:
    with pytest.raises(PasswordRefused) as refused:
        POLICY.check("ana lima", name="Ana Lima", email="ana@example.com", pointer="/new_password")
    assert {error.code for error in refused.value.errors} == {
        "password.too_short",
        "password.personal",
    }
    assert {error.pointer for error in refused.value.errors} == {"/new_password"}
    assert "ana lima" not in f"{refused.value.detail} {refused.value.errors}"


@given(st.text(max_size=300), st.text(max_size=50), st.text(max_size=50))
def test_any_text_gets_an_answer(password: str, name: str, email: str) -> None:
    assume_encodable(password)
    found = codes(password, name=name, email=email)
    text = prepared(password).decode()
    assert ("password.too_short" in found) == (len(text) < 15)
    assert ("password.too_long" in found) == (len(text.encode()) > 1024)


@given(st.text(st.characters(categories=["L", "N", "P"]), min_size=15, max_size=200))
def test_letter_case_does_not_make_a_blocked_password_good(password: str) -> None:
    blocked = codes(password.lower()) & {"password.common", "password.predictable"}
    if password.lower() == password.upper().lower():
        assert codes(password.upper()) & {"password.common", "password.predictable"} == blocked


@given(st.sampled_from(sorted(common_passwords())), st.text(string.digits, max_size=20))
def test_no_common_password_passes_however_many_digits_follow(word: str, digits: str) -> None:
    padded = word + digits
    if len(padded) >= 15 and word.isalpha():
        assert codes(padded, name="", email="") & {"password.common", "password.predictable"}


@given(st.text(max_size=100))
def test_two_spellings_of_a_password_hash_alike(password: str) -> None:
    assume_encodable(password)
    assert prepared(unicodedata.normalize("NFD", password)) == prepared(password)


def assume_encodable(text: str) -> None:
    """JSON carries no lone surrogates, so no password has one."""
    assume(not any("\ud800" <= character <= "\udfff" for character in text))


@pytest.mark.anyio
async def test_a_hash_is_argon2id_with_the_parameters_of_the_settings() -> None:
    hasher = PasswordHasher(HashSettings())
    encoded = await hasher.hash(GOOD)
    assert encoded.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert (await hasher.verify(encoded, GOOD)).is_match
    assert not (await hasher.verify(encoded, GOOD + "x")).is_match
    hasher.close()


@pytest.mark.anyio
async def test_a_hash_of_other_parameters_matches_and_is_outdated() -> None:
    old = PasswordHasher(CHEAP)
    new = PasswordHasher(CHEAP.model_copy(update={"time_cost": 2}))
    encoded = await old.hash(GOOD)
    assert not (await old.verify(encoded, GOOD)).is_outdated
    assert (await new.verify(encoded, GOOD)).is_outdated
    old.close()
    new.close()


@pytest.mark.anyio
@pytest.mark.parametrize("encoded", ["", "$argon2id$garbage", "plain text", None])
async def test_nothing_matches_what_is_no_hash(encoded: str | None) -> None:
    hasher = PasswordHasher(CHEAP)
    assert not (await hasher.verify(encoded, GOOD)).is_match
    hasher.close()


@pytest.mark.anyio
async def test_an_unknown_account_costs_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared by what argon2 is asked to do, since timing a shared machine proves nothing."""
    asked: list[str] = []
    verify = Argon2.verify

    def recording(self: Argon2, encoded: str, password: bytes) -> bool:
        asked.append(encoded.rpartition("$")[0].rpartition("$")[0])
        with pytest.raises(VerifyMismatchError) as refused:
            verify(self, encoded, password)
        raise refused.value

    monkeypatch.setattr(Argon2, "verify", recording)
    hasher = PasswordHasher(CHEAP)
    await hasher.verify(await hasher.hash(GOOD), "wrong")
    await hasher.verify(None, "wrong")
    assert asked == ["$argon2id$v=19$m=8192,t=1,p=1"] * 2
    hasher.close()


@pytest.mark.anyio
async def test_a_full_pool_sheds_load_at_once_and_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_end, hash_ = Event(), Argon2.hash

    def held(self: Argon2, password: bytes) -> str:
        assert may_end.wait(PATIENCE)
        return hash_(self, password)

    hasher = PasswordHasher(CHEAP)
    monkeypatch.setattr(Argon2, "hash", held)
    asked = [asyncio.create_task(hasher.hash(GOOD)) for _ in range(10)]
    await eventually(lambda: sum(task.done() for task in asked) == 8)
    may_end.set()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    shed = [outcome for outcome in outcomes if isinstance(outcome, HashingBusy)]
    assert len(shed) == 8  # one thread and one place in the queue
    assert all(error.retry_after for error in shed)
    assert (await hasher.verify(await hasher.hash(GOOD), GOOD)).is_match
    hasher.close()


@pytest.mark.anyio
async def test_a_request_that_goes_away_gives_its_place_back() -> None:
    hasher = PasswordHasher(CHEAP)
    for _ in range(20):
        tasks = [asyncio.create_task(hasher.hash(secrets.token_hex())) for _ in range(2)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # The thread is still at the cancelled hash; its end frees the place.
        await asyncio.get_running_loop().run_in_executor(hasher._pool, bool)
        assert (await hasher.hash(GOOD)).startswith("$argon2id$")
    hasher.close()
