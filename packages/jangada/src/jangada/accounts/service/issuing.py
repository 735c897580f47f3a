"""Making sessions and their tokens."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from jangada.accounts import access_tokens
from jangada.accounts.models import Session
from jangada.accounts.refresh_tokens import RefreshToken
from jangada.accounts.schemas import Client, Principal, Tokens
from jangada.accounts.signing_keys import PrivateKey
from jangada.db import new_id
from jangada.runtime import Runtime, derived_key

MAX_USER_AGENT: Final = 300
_PURPOSE: Final = "accounts: refresh tokens"


def refresh_key(runtime: Runtime) -> bytes:
    """The key that refresh tokens are derived with."""
    return derived_key(runtime.settings, _PURPOSE)


def refresh_token(runtime: Runtime, session: Session) -> RefreshToken:
    """The refresh token of the session's present generation."""
    return RefreshToken.derive(
        refresh_key(runtime),
        tenant_id=session.tenant_id,
        family=session.id,
        generation=session.generation,
    )


def new_session(runtime: Runtime, *, user_id: UUID, tenant_id: UUID, client: Client) -> Session:
    """A session of generation 0 that begins now; the caller adds it."""
    now = runtime.clock.now()
    session = Session(
        tenant_id=tenant_id,
        id=new_id(),
        user_id=user_id,
        generation=0,
        rotated_at=now,
        idle_expires_at=now + runtime.settings.auth.refresh_idle,
        expires_at=now + runtime.settings.auth.refresh_max,
        address=client.address,
        user_agent=(client.user_agent or "")[:MAX_USER_AGENT] or None,
        created_at=now,
    )
    session.token_hash = refresh_token(runtime, session).digest()
    return session


def issue(runtime: Runtime, signer: PrivateKey, session: Session, roles: Sequence[str]) -> Tokens:
    """An access token, and the refresh token of the session's present generation."""
    access = access_tokens.sign(
        runtime.settings.auth,
        signer,
        Principal(session.user_id, session.tenant_id, session.id, frozenset(roles)),
        token_id=new_id(),
        now=runtime.clock.now(),
        not_after=min(session.idle_expires_at, session.expires_at),
    )
    return Tokens(access.text, refresh_token(runtime, session).encode(), access.expires_in)
