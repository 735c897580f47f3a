"""Keys that sign access tokens: made here, sealed for the database, published as JWKs.

The private half is stored only under AES-256-GCM with a key derived from the master key; the key
id is bound in, so that sealed keys cannot be swapped between rows.
"""

import os
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from jangada.accounts.errors import MasterKeyMismatch

type Algorithm = Literal["EdDSA", "ES256"]

_NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What verifies: a key and the one algorithm that it is used with."""

    kid: str
    algorithm: Algorithm
    key: Ed25519PublicKey | EllipticCurvePublicKey

    def jwk(self) -> dict[str, Any]:
        """The key as RFC 7517 has it, for `/.well-known/jwks.json`."""
        if isinstance(self.key, Ed25519PublicKey):
            members = OKPAlgorithm.to_jwk(self.key, as_dict=True)
        else:
            members = ECAlgorithm.to_jwk(self.key, as_dict=True)
        return {**members, "use": "sig", "alg": self.algorithm, "kid": self.kid}

    def der(self) -> bytes:
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What signs. Never logged: its key has no representation."""

    kid: str
    algorithm: Algorithm
    key: Ed25519PrivateKey | EllipticCurvePrivateKey = field(repr=False)

    def public(self) -> PublicKey:
        return PublicKey(self.kid, self.algorithm, self.key.public_key())

    def sealed(self, sealing_key: bytes) -> bytes:
        """The key encrypted for the database."""
        der = self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(sealing_key).encrypt(nonce, der, _bound_to(self.kid, self.algorithm))


def generate(key_id: UUID, algorithm: Algorithm) -> PrivateKey:
    key = (
        Ed25519PrivateKey.generate() if algorithm == "EdDSA" else generate_private_key(SECP256R1())
    )
    return PrivateKey(str(key_id), algorithm, key)


def load_public(key_id: UUID, algorithm: Algorithm, der: bytes) -> PublicKey:
    key = load_der_public_key(der)
    if not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey):
        raise TypeError(f"Signing key {key_id} is of an unknown type.")
    return PublicKey(str(key_id), algorithm, key)


def unseal(sealing_key: bytes, key_id: UUID, algorithm: Algorithm, sealed: bytes) -> PrivateKey:
    """The private key of a row. Raises `MasterKeyMismatch` under another master key."""
    nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        der = AESGCM(sealing_key).decrypt(nonce, ciphertext, _bound_to(str(key_id), algorithm))
    except InvalidTag:
        raise MasterKeyMismatch(
            "JANGADA_AUTH__MASTER_KEY is not the one that the signing keys were made under. "
            "Restore it, or make new keys with `jangada keys rotate --discard-old`."
        ) from None
    key = load_der_private_key(der, password=None)
    if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey):
        raise TypeError(f"Signing key {key_id} is of an unknown type.")
    return PrivateKey(str(key_id), algorithm, key)


def _bound_to(kid: str, algorithm: Algorithm) -> bytes:
    return f"{algorithm}:{kid}".encode()
