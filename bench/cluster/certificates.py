"""The keys of one bed: an authority of its own, and what it signs.

Python's TLS is strict about an authority's key usage, and Go's about names of the server.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE: Final = timedelta(days=30)
NAMES: Final = ("localhost", "kubernetes.default.svc")
ADDRESS: Final = "127.0.0.1"
AUTHORITY: Final = "bed"
ACCOUNTS: Final = "accounts"
"""The pair of keys that ServiceAccounts' tokens are signed with."""


def write_certificates(folder: Path, *, addresses: Sequence[str] = ()) -> None:
    """`ca`, a serving certificate `server`, the aggregator's `proxy`, and keys for tokens.

    The API server is on loopback, and on these addresses.
    """
    authority = generate_private_key(SECP256R1())
    _write(
        folder,
        "ca",
        authority,
        _certificate(AUTHORITY, authority, authority, _of_authority()),
    )
    served = _of_server([ADDRESS, *addresses])
    for name, subject in (("server", "kube-apiserver"), ("proxy", "front-proxy")):
        key = generate_private_key(SECP256R1())
        _write(folder, name, key, _certificate(subject, key, authority, served))
    tokens = generate_private_key(SECP256R1())
    _write_key(folder / f"{ACCOUNTS}.key", tokens)
    public = tokens.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{ACCOUNTS}.pub").write_bytes(public)


def _certificate(
    subject: str,
    key: EllipticCurvePrivateKey,
    authority: EllipticCurvePrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(AUTHORITY))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFE)
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    for identifier in (
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
    ):
        builder = builder.add_extension(identifier, critical=False)
    return builder.sign(authority, SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _of_authority() -> list[tuple[x509.ExtensionType, bool]]:
    usage = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.KeyUsage(key_cert_sign=True, **usage), True),
    ]


def _of_server(addresses: Sequence[str]) -> list[tuple[x509.ExtensionType, bool]]:
    numbers = (x509.IPAddress(ip_address(address)) for address in addresses)
    names = [*map(x509.DNSName, NAMES), *numbers]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage(uses), False),
        (x509.SubjectAlternativeName(names), False),
    ]


def _write(
    folder: Path, name: str, key: EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    _write_key(folder / f"{name}.key", key)


def _write_key(path: Path, key: EllipticCurvePrivateKey) -> None:
    path.touch(0o600)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    path.write_bytes(text)
