"""Access tokens: signed JWTs that say who, in which tenant and session, until when.

Verification is strict: the key id names a key that we published, the algorithm is the key's own
and never the token's choice, header and claim `typ` must be those of an access token, and every
claim must be there and of its type. Expiry has no leeway; the leeway of `nbf` and `iat` covers
only the clocks of our own replicas.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import jwt
from jwt.types import Options
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jangada.accounts.errors import TokenExpired, TokenInvalid
from jangada.accounts.schemas import Principal
from jangada.accounts.signing_keys import PrivateKey, PublicKey
from jangada.auth_settings import AuthSettings

HEADER_TYPE: Final = "at+jwt"
"""RFC 9068's media type, so that no other JWT of ours or others' passes for an access token."""

CLAIM_TYPE: Final = "access"
MAX_CHARACTERS: Final = 4096
LEEWAY: Final = timedelta(seconds=5)


class Claims(BaseModel):
    """The payload, each claim required and of its type."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    iss: str
    aud: str
    sub: UUID
    tid: UUID
    sid: UUID
    jti: UUID
    typ: str
    iat: int = Field(strict=True)
    nbf: int = Field(strict=True)
    exp: int = Field(strict=True)
    roles: tuple[str, ...]

    def principal(self) -> Principal:
        return Principal(
            user_id=self.sub, tenant_id=self.tid, session_id=self.sid, roles=frozenset(self.roles)
        )


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token to hand out, and how long it is good for."""

    text: str
    expires_in: timedelta


def sign(
    settings: AuthSettings,
    key: PrivateKey,
    principal: Principal,
    *,
    token_id: UUID,
    now: datetime,
    not_after: datetime,
) -> AccessToken:
    """An access token for the principal that ends with its session (`not_after`) at the latest."""
    issued = now.replace(microsecond=0)
    expires = min(issued + settings.access_token_lifetime, not_after)
    claims = {
        "iss": settings.issuer,
        "aud": settings.audience,
        "sub": str(principal.user_id),
        "tid": str(principal.tenant_id),
        "sid": str(principal.session_id),
        "jti": str(token_id),
        "typ": CLAIM_TYPE,
        "iat": int(issued.timestamp()),
        "nbf": int(issued.timestamp()),
        "exp": int(expires.timestamp()),
        "roles": sorted(principal.roles),
    }
    headers = {"kid": key.kid, "typ": HEADER_TYPE}
    text = jwt.encode(claims, key.key, algorithm=key.algorithm, headers=headers)
    return AccessToken(text, expires - issued)


def key_id(token: str) -> str:
    """The key id that the token claims; nothing about it is verified yet. Raises `TokenInvalid`."""
    if len(token) > MAX_CHARACTERS:
        raise _invalid()
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise _invalid() from None
    kid = header.get("kid")
    is_ours = header.get("typ") == HEADER_TYPE and "crit" not in header
    if not isinstance(kid, str) or not is_ours or not _is_canonical(token):
        raise _invalid()
    return kid


def verify(settings: AuthSettings, key: PublicKey, token: str, *, now: datetime) -> Principal:
    """Who the token speaks for. Raises `TokenInvalid`, or `TokenExpired` when all else is right.

    Whether the session still lives is not the token's to say: ask `Revocations`.
    """
    claims = _claims(_payload(key, token))
    if (claims.iss, claims.aud, claims.typ) != (settings.issuer, settings.audience, CLAIM_TYPE):
        raise _invalid()
    horizon = (now + LEEWAY).timestamp()
    if claims.nbf > horizon or claims.iat > horizon:
        raise _invalid()
    if claims.exp <= now.timestamp():
        raise TokenExpired("The access token has expired.")
    return claims.principal()


_SIGNATURE_ONLY: Final[Options] = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""PyJWT reads the system's clock and accepts a list for `aud`: `verify` checks the claims."""


def _payload(key: PublicKey, token: str) -> Mapping[str, Any]:
    try:
        return jwt.decode(token, key.key, algorithms=[key.algorithm], options=_SIGNATURE_ONLY)
    except jwt.InvalidTokenError:
        raise _invalid() from None


def _is_canonical(token: str) -> bool:
    """Whether the signature is spelt the one way that base64url allows.

    Its last character has bits that decoders ignore; without this an altered token could pass.
    """
    signature = token.rpartition(".")[2]
    padded = signature + "=" * (-len(signature) % 4)
    return urlsafe_b64encode(urlsafe_b64decode(padded)).decode().rstrip("=") == signature


def _claims(payload: Mapping[str, Any]) -> Claims:
    try:
        return Claims.model_validate(payload)
    except ValidationError:
        raise _invalid() from None


def _invalid() -> TokenInvalid:
    # One answer for all reasons: the bearer of a forged token is owed no hint.
    return TokenInvalid("The access token is not valid.")
