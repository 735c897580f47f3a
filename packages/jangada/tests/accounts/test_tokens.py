"""Access tokens, refresh tokens and signing keys: what is accepted, and above all what is not."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from jangada.accounts import access_tokens
from jangada.accounts.errors import MasterKeyMismatch, TokenExpired, TokenInvalid
from jangada.accounts.refresh_tokens import RefreshToken
from jangada.accounts.schemas import Principal
from jangada.accounts.signing_keys import (
    Algorithm,
    PrivateKey,
    generate,
    load_public,
    unseal,
)
from jangada.auth_settings import AuthSettings
from jangada.db import new_id

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = AuthSettings(master_key=SecretStr("x" * 32))
WHO = Principal(new_id(), new_id(), new_id(), frozenset({"owner", "member"}))
KEY = generate(new_id(), "EdDSA")


def signed(key: PrivateKey = KEY, *, not_after: timedelta = timedelta(days=1)) -> str:
    return access_tokens.sign(
        SETTINGS, key, WHO, token_id=new_id(), now=NOW, not_after=NOW + not_after
    ).text


def accept(token: str, *, at: timedelta = timedelta(0), key: PrivateKey = KEY) -> Principal:
    if access_tokens.key_id(token) != key.kid:
        raise TokenInvalid("foreign")
    return access_tokens.verify(SETTINGS, key.public(), token, now=NOW + at)


def payload(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def resigned(
    change: Callable[[dict[str, Any]], object] = bool,
    *,
    headers: dict[str, Any] | None = None,
) -> str:
    """A token of ours with other claims or headers, signed with the right key."""
    claims = payload(signed())
    change(claims)
    return jwt.encode(
        claims, KEY.key, "EdDSA", headers={"kid": KEY.kid, "typ": "at+jwt", **(headers or {})}
    )


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])
def test_a_token_says_who_and_is_accepted(algorithm: Algorithm) -> None:
    key = generate(new_id(), algorithm)
    token = signed(key)
    assert accept(token, key=key) == WHO
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "kid": key.kid, "typ": "at+jwt"}
    claims = payload(token)
    assert set(claims) == {
        *("iss", "aud", "sub", "tid", "sid", "jti", "typ", "iat", "nbf", "exp", "roles")
    }
    assert claims["typ"] == "access"
    assert claims["roles"] == ["member", "owner"]
    assert claims["exp"] - claims["iat"] == 900


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])
def test_anybody_can_verify_with_the_published_key(algorithm: Algorithm) -> None:
    key = generate(new_id(), algorithm)
    published = jwt.PyJWK(key.public().jwk())
    assert published.key_id == key.kid
    claims = jwt.decode(
        signed(key),
        published.key,
        algorithms=[algorithm],
        audience="jangada",
        issuer="jangada",
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    assert claims["sub"] == str(WHO.user_id)


def test_the_published_key_holds_nothing_private() -> None:
    assert set(KEY.public().jwk()) == {"kty", "crv", "x", "use", "alg", "kid"}


def test_a_token_expires_to_the_second() -> None:
    token = signed()
    assert accept(token, at=timedelta(seconds=899.9)) == WHO
    with pytest.raises(TokenExpired):
        accept(token, at=timedelta(minutes=15))


def test_a_token_never_outlives_its_session() -> None:
    with pytest.raises(TokenExpired):
        accept(signed(not_after=timedelta(minutes=1)), at=timedelta(minutes=1))


def test_the_clocks_of_replicas_may_differ_a_little() -> None:
    assert accept(signed(), at=timedelta(seconds=-5)) == WHO
    with pytest.raises(TokenInvalid):
        accept(signed(), at=timedelta(seconds=-6))


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def unsigned(algorithm: str) -> str:
    head = encoded({"alg": algorithm, "typ": "at+jwt", "kid": KEY.kid})
    return f"{head}.{encoded(payload(signed()))}."


def signed_with_public_key_as_secret() -> str:
    """The old confusion: a public key taken for an HMAC secret."""
    secret = KEY.public().key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = encoded({"alg": "HS256", "typ": "at+jwt", "kid": KEY.kid})
    body = f"{head}.{encoded(payload(signed()))}"
    mac = hmac.digest(secret, body.encode(), hashlib.sha256)
    return f"{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def signed_by_another_key() -> str:
    return jwt.encode(
        payload(signed()),
        Ed25519PrivateKey.generate(),
        "EdDSA",
        headers={"kid": KEY.kid, "typ": "at+jwt"},
    )


def signed_by_a_key_that_the_token_brings() -> str:
    intruder = generate(new_id(), "EdDSA")
    return jwt.encode(
        payload(signed()),
        intruder.key,
        "EdDSA",
        headers={"kid": KEY.kid, "typ": "at+jwt", "jwk": intruder.public().jwk()},
    )


def signed_with_another_algorithm() -> str:
    return jwt.encode(
        payload(signed()),
        generate_private_key(SECP256R1()),
        "ES256",
        headers={"kid": KEY.kid, "typ": "at+jwt"},
    )


def with_altered_claims() -> str:
    head, _, signature = signed().split(".")
    return f"{head}.{encoded({**payload(signed()), 'roles': ['admin']})}.{signature}"


def with_altered_last_character() -> str:
    """Its four low bits are padding, which lenient decoders ignore."""
    token = signed()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def without(claim: str) -> str:
    return resigned(lambda claims: claims.pop(claim))


def having(**changes: object) -> str:
    return resigned(lambda claims: claims.update(changes))


FORGERIES: dict[str, Callable[[], str]] = {
    "empty": str,
    "no token": lambda: "garbage",
    "two parts": lambda: "a.b",
    "five parts": lambda: signed() + ".a.b",
    "too long": lambda: signed() + "A" * 5000,
    "not ascii": lambda: signed() + "é",
    "alg none": lambda: unsigned("none"),
    "alg None": lambda: unsigned("None"),
    "alg empty": lambda: unsigned(""),
    "signature cut off": lambda: signed().rpartition(".")[0] + ".",
    "public key as secret": signed_with_public_key_as_secret,
    "another key": signed_by_another_key,
    "key in the token": signed_by_a_key_that_the_token_brings,
    "another algorithm": signed_with_another_algorithm,
    "altered claims": with_altered_claims,
    "altered last character": with_altered_last_character,
    "padded": lambda: signed() + "==",
    "foreign kid": lambda: resigned(headers={"kid": str(new_id())}),
    "kid as a path": lambda: resigned(headers={"kid": "../../dev/null"}),
    "header typ JWT": lambda: resigned(headers={"typ": "JWT"}),
    "header typ missing": lambda: resigned(headers={"typ": None}),
    "critical extension": lambda: resigned(headers={"crit": ["exp"], "exp": 1}),
    "claim typ refresh": lambda: having(typ="refresh"),
    "another issuer": lambda: having(iss="evil"),
    "another audience": lambda: having(aud="evil"),
    "several audiences": lambda: having(aud=["jangada", "evil"]),
    "not yet good": lambda: having(nbf=int(NOW.timestamp()) + 60),
    "issued in the future": lambda: having(iat=int(NOW.timestamp()) + 60),
    "expiry as text": lambda: having(exp=str(int(NOW.timestamp()) + 60)),
    "expiry infinite": lambda: having(exp=float("inf")),
    "expiry true": lambda: having(exp=True),
    "subject no id": lambda: having(sub="1 OR 1=1"),
    "roles as text": lambda: having(roles="owner"),
    **{
        f"no {claim}": lambda claim=claim: without(claim)  # type: ignore[misc]
        for claim in sorted(access_tokens.Claims.model_fields)
    },
    "refresh token": lambda: RefreshToken.derive(
        b"k" * 32, tenant_id=WHO.tenant_id, family=WHO.session_id, generation=0
    ).encode(),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_token_is_refused(forgery: str) -> None:
    with pytest.raises(TokenInvalid):
        accept(FORGERIES[forgery]())


def test_a_forged_token_that_is_expired_too_is_called_forged() -> None:
    """Only who once held a good token learns that it has expired."""
    with pytest.raises(TokenInvalid):
        accept(with_altered_claims(), at=timedelta(days=1))


def test_a_key_is_sealed_under_the_master_key_and_bound_to_its_id() -> None:
    key_id, sealing = new_id(), b"s" * 32
    key = generate(key_id, "EdDSA")
    sealed = key.sealed(sealing)
    assert unseal(sealing, key_id, "EdDSA", sealed).public().der() == key.public().der()
    assert sealed != key.sealed(sealing)
    altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    wrong: list[tuple[bytes, UUID, Algorithm, bytes]] = [
        (b"t" * 32, key_id, "EdDSA", sealed),
        (sealing, new_id(), "EdDSA", sealed),
        (sealing, key_id, "ES256", sealed),
        (sealing, key_id, "EdDSA", altered),
    ]
    for arguments in wrong:
        with pytest.raises(MasterKeyMismatch):
            unseal(*arguments)


def test_a_private_key_does_not_show() -> None:
    assert "PrivateKey object" not in repr(KEY)


def test_a_key_of_another_kind_is_refused() -> None:
    other, key_id, sealing = X25519PrivateKey.generate(), new_id(), b"s" * 32
    der = other.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(TypeError):
        load_public(key_id, "EdDSA", der)
    wrong = replace(generate(key_id, "EdDSA"), key=other)  # type: ignore[arg-type]
    sealed = wrong.sealed(sealing)
    with pytest.raises(TypeError):
        unseal(sealing, key_id, "EdDSA", sealed)


def test_a_public_key_survives_the_database() -> None:
    for algorithm in ("EdDSA", "ES256"):
        public = generate(new_id(), algorithm).public()
        assert load_public(UUID(public.kid), algorithm, public.der()).jwk() == public.jwk()


IDS = st.uuids()
GENERATIONS = st.integers(0, 2**32 - 1)


@given(IDS, IDS, GENERATIONS)
def test_a_refresh_token_can_be_made_again_and_read(
    tenant_id: UUID, family: UUID, generation: int
) -> None:
    token = RefreshToken.derive(
        b"k" * 32, tenant_id=tenant_id, family=family, generation=generation
    )
    assert RefreshToken.parse(token.encode()) == token
    assert token.is_genuine(b"k" * 32)
    assert not token.is_genuine(b"l" * 32)
    assert len(token.mac) * 8 >= 128


@given(IDS, GENERATIONS, st.integers(0, 68), st.integers(1, 255))
def test_no_byte_of_a_refresh_token_can_be_altered(
    id: UUID, generation: int, position: int, flipped: int
) -> None:
    text = RefreshToken.derive(
        b"k" * 32, tenant_id=WHO.tenant_id, family=id, generation=generation
    ).encode()
    raw = bytearray(base64.urlsafe_b64decode(text.removeprefix("jgr_")))
    raw[position] ^= flipped
    altered = RefreshToken.parse("jgr_" + base64.urlsafe_b64encode(raw).decode())
    assert altered is None or not altered.is_genuine(b"k" * 32)


@given(st.text(max_size=120))
def test_any_text_is_a_refresh_token_or_none(text: str) -> None:
    assert RefreshToken.parse(text) is None
    assert RefreshToken.parse(f"jgr_{text}") is None
    assert RefreshToken.parse("jgr_" + text.ljust(92, "é")[:92]) is None


def test_an_access_token_is_no_refresh_token() -> None:
    assert RefreshToken.parse(signed()) is None
