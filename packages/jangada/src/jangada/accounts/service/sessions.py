"""Sessions: seeing where one is signed in, and ending that.

An end is committed first and then known to this process; the others learn of it from their feed
within a second.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from jangada import crud
from jangada.accounts.errors import SessionNotFound
from jangada.accounts.models import EndReason, Session, is_live
from jangada.accounts.refresh_tokens import RefreshToken
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import Principal
from jangada.accounts.service.refreshing import find_locked, is_of
from jangada.crud import Page, PageRequest, Sort

NEWEST_FIRST: Final = Sort((Session.created_at, Session.id), descending=True)


def visible(who: Principal, now: datetime) -> Select[Session]:
    """The principal's own live sessions in this tenant."""
    return select(Session).where(
        Session.tenant_id == who.tenant_id, Session.user_id == who.user_id, is_live(now)
    )


async def list_sessions(
    session: AsyncSession, who: Principal, page: PageRequest, *, now: datetime
) -> Page[Session]:
    """Where the principal is signed in, newest first."""
    bound_to = {"tenant": str(who.tenant_id), "user": str(who.user_id)}
    return await crud.paginate(
        session, visible(who, now), page, sort=NEWEST_FIRST, bound_to=bound_to
    )


async def end_session(accounts: Accounts, who: Principal, id: UUID) -> None:
    """End one of the principal's sessions. Raises `SessionNotFound`."""
    now = accounts.runtime.clock.now()
    async with accounts.runtime.database.transaction(who.tenant_id) as session:
        row = await crud.fetch(session, visible(who, now), id, missing=SessionNotFound)
        await mark_ended(session, Session.id == row.id, EndReason.REVOKED, now=now)
    accounts.revocations.end(id)


async def end_all_sessions(accounts: Accounts, who: Principal) -> None:
    """End every session of the principal, in whatever tenant, this one too."""
    now = accounts.runtime.clock.now()
    async with accounts.runtime.database.system_transaction("end all sessions") as session:
        ended = await mark_ended(
            session, Session.user_id == who.user_id, EndReason.REVOKED, now=now
        )
    for session_id in ended:
        accounts.revocations.end(session_id)


async def logout(accounts: Accounts, who: Principal) -> None:
    """End the session that the principal speaks through."""
    await _end_in_tenant(accounts, who.tenant_id, who.session_id)


async def logout_by_refresh_token(accounts: Accounts, text: str) -> None:
    """End the session of a refresh token; a token that is none, or no longer good, changes nothing.

    For clients whose access token has expired. As RFC 7009 has it, the answer is the same always.
    """
    token = RefreshToken.parse(text)
    if token is None:
        return
    async with accounts.runtime.database.transaction(token.tenant_id) as session:
        row = await find_locked(session, token, accounts.runtime)
        is_known = row is not None and is_of(token, row, accounts.runtime)
    if is_known:
        await _end_in_tenant(accounts, token.tenant_id, token.family)


async def mark_ended(
    session: AsyncSession, which: ColumnElement[bool], reason: EndReason, *, now: datetime
) -> list[UUID]:
    """End the sessions that have not ended yet, and return their ids."""
    rows = await session.scalars(
        update(Session)
        .where(which, Session.ended_at.is_(None))
        .values(ended_at=now, end_reason=reason, updated_at=now)
        .returning(Session.id)
        .execution_options(synchronize_session=False)
    )
    return list(rows)


async def _end_in_tenant(accounts: Accounts, tenant_id: UUID, id: UUID) -> None:
    now = accounts.runtime.clock.now()
    async with accounts.runtime.database.transaction(tenant_id) as session:
        await mark_ended(
            session,
            (Session.tenant_id == tenant_id) & (Session.id == id),
            EndReason.LOGOUT,
            now=now,
        )
    accounts.revocations.end(id)
