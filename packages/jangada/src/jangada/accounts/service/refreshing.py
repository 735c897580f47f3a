"""Refreshing: each refresh token is exchanged once, for its one successor.

For the grace period after a rotation the token before gets the same successor again, so tabs that
refresh at the same moment agree. Any later use of an old token means that two parties hold it: the
session ends.
"""

import hmac
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.accounts.errors import RefreshRefused
from jangada.accounts.models import EndReason, Session, is_live
from jangada.accounts.refresh_tokens import RefreshToken
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import Tokens
from jangada.accounts.service.issuing import issue, refresh_key, refresh_token
from jangada.runtime import Runtime
from jangada.tenants.models import Membership, Role, User, is_enabled


async def refresh(accounts: Accounts, text: str) -> Tokens:
    """Exchange a refresh token. Raises `RefreshRefused`; reuse has then ended the session."""
    token = RefreshToken.parse(text)
    if token is None:
        raise _refused()
    signer = await accounts.keyring.signer()
    async with accounts.runtime.database.transaction(token.tenant_id) as session:
        row = await find_locked(session, token, accounts.runtime)
        is_exchanged = row is not None and _exchange(accounts.runtime, row, token)
        roles = await current_roles(session, row) if row is not None and is_exchanged else ()
    # Only now, for the end of a session whose token was reused has to be committed.
    if row is None or not roles:
        if row is not None and row.ended_at is not None:
            accounts.revocations.end(row.id)
        raise _refused()
    return issue(accounts.runtime, signer, row, roles)


async def find_locked(
    session: AsyncSession, token: RefreshToken, runtime: Runtime
) -> Session | None:
    """The live session that the token names, locked; nothing about the token is verified yet."""
    row: Session | None = await session.scalar(
        select(Session)
        .where(Session.tenant_id == token.tenant_id, Session.id == token.family)
        .where(is_live(runtime.clock.now()))
        .with_for_update()
    )
    return row


def is_of(token: RefreshToken, row: Session, runtime: Runtime) -> bool:
    """Whether the token is one of the session's, present or past.

    The stored hashes know the last two even after the master key was replaced.
    """
    return (
        _matches(token, row.token_hash)
        or _matches(token, row.previous_hash)
        or (token.generation < row.generation and token.is_genuine(refresh_key(runtime)))
    )


def _exchange(runtime: Runtime, row: Session, token: RefreshToken) -> bool:
    """Bring the row to the generation to hand out. False refuses, and reuse ends the session."""
    if _matches(token, row.token_hash):
        _rotate(runtime, row)
        return True
    is_in_grace = runtime.clock.now() < row.rotated_at + runtime.settings.auth.refresh_grace
    if _matches(token, row.previous_hash) and is_in_grace:
        # Under a replaced master key the successor cannot be made again.
        return _matches(refresh_token(runtime, row), row.token_hash)
    if is_of(token, row, runtime):
        row.ended_at = runtime.clock.now()
        row.end_reason = EndReason.TOKEN_REUSED
    return False


def _rotate(runtime: Runtime, row: Session) -> None:
    now = runtime.clock.now()
    row.previous_hash = row.token_hash
    row.generation += 1
    row.token_hash = refresh_token(runtime, row).digest()
    row.rotated_at = now
    row.idle_expires_at = now + runtime.settings.auth.refresh_idle


def _matches(token: RefreshToken, digest: bytes | None) -> bool:
    return digest is not None and hmac.compare_digest(token.digest(), digest)


async def current_roles(session: AsyncSession, row: Session) -> Sequence[str]:
    """The roles of the session's user today; none if the user has left or is disabled."""
    roles = await session.scalars(
        select(Role.name)
        .join(
            Membership,
            (Membership.tenant_id == Role.tenant_id) & (Membership.role_id == Role.id),
        )
        .join(User, User.id == Membership.user_id)
        .where(Membership.tenant_id == row.tenant_id, Membership.user_id == row.user_id)
        .where(is_enabled())
    )
    return roles.all()


def _refused() -> RefreshRefused:
    return RefreshRefused("The refresh token is not good any more; sign in again.")
