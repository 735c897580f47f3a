"""The settings of signing in: passwords, what hashing them costs, tokens, sessions and keys.

The part of `jangada.config` that is the largest; a file of its own keeps both of a length to read.
"""

from datetime import timedelta
from typing import Final, Literal

from pydantic import Field, SecretStr, field_validator

from jangada.environment import Duration, Section

MASTER_KEY_BYTES: Final = 32


class PasswordSettings(Section):
    """What a new password must be like."""

    min_length: int = Field(
        15,
        ge=8,
        le=128,
        description="Characters a password needs at least (NIST SP 800-63B-4 says 15).",
    )
    max_bytes: int = Field(
        1024,
        ge=64,
        le=4096,
        description="Bytes (UTF-8) a password may have at most: bounds the hashing work.",
    )
    blocklist: bool = Field(
        default=True,
        description="Refuse common passwords and those made of the person's own name or e-mail "
        "address.",
    )
    require_lower: bool = Field(
        default=False, description="Require a lower-case letter. Off: length beats composition."
    )
    require_upper: bool = Field(default=False, description="Require an upper-case letter.")
    require_digit: bool = Field(default=False, description="Require a digit.")
    require_symbol: bool = Field(
        default=False, description="Require a character that is neither letter nor digit."
    )


class HashSettings(Section):
    """What hashing a password costs, and how much of it runs at once."""

    memory_kib: int = Field(
        19456, ge=8192, description="Argon2id memory in KiB (OWASP: 19 MiB with t=2, p=1)."
    )
    time_cost: int = Field(
        2,
        ge=1,
        description="Argon2id passes. Raise it until a hash takes as long as you can afford.",
    )
    parallelism: int = Field(1, ge=1, le=16, description="Argon2id lanes.")
    workers: int = Field(
        2,
        ge=1,
        le=64,
        description="Threads that hash in one process; about the number of its cores.",
    )
    queue: int = Field(
        32,
        ge=1,
        description="Hashes that may wait for a thread; more are shed with 503 and Retry-After.",
    )


class ThrottleSettings(Section):
    """How many failed sign-ins are borne."""

    account_failures: int = Field(
        10,
        ge=1,
        description="Failed sign-ins for one e-mail address before more are refused (429).",
    )
    address_failures: int = Field(
        50,
        ge=1,
        description="Failed sign-ins from one client address before more are refused (429).",
    )
    window: Duration = Field(
        timedelta(minutes=15), description="The time in which failed sign-ins are counted."
    )


class AuthSettings(Section):
    """Signing keys, tokens, sessions and passwords."""

    master_key: SecretStr | None = Field(
        None,
        description="At least 32 bytes, from `jangada gen-secret`. Encrypts the signing keys in "
        "the database and signs cursors. Everybody who holds it can act as anybody; keep it out "
        "of the database's backups.",
    )
    algorithm: Literal["EdDSA", "ES256"] = Field(
        "EdDSA",
        description="How access tokens are signed. ES256 where a client library lacks Ed25519.",
    )
    issuer: str = Field(
        "jangada", description="The `iss` of access tokens: your public URL, once you have one."
    )
    audience: str = Field("jangada", description="The `aud` of access tokens.")
    access_token_lifetime: Duration = Field(
        timedelta(minutes=15), description="How long an access token is good."
    )
    refresh_idle: Duration = Field(
        timedelta(days=7), description="A session that is not refreshed for so long ends."
    )
    refresh_max: Duration = Field(
        timedelta(days=30),
        description="A session ends after so long, however often it is refreshed.",
    )
    refresh_grace: Duration = Field(
        timedelta(seconds=30),
        description="For so long after a rotation the previous refresh token gets the same "
        "successor, so that parallel refreshes do not end the session.",
    )
    password: PasswordSettings = PasswordSettings()
    hash: HashSettings = HashSettings()
    throttle: ThrottleSettings = ThrottleSettings()

    @field_validator("master_key")
    @classmethod
    def _strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MASTER_KEY_BYTES:
            raise ValueError(
                f"must have at least {MASTER_KEY_BYTES} bytes; make one with `jangada gen-secret`"
            )
        return value
