"""Dropping what nobody needs any more. Safe in any number of processes at once."""

from datetime import timedelta
from typing import Final

from sqlalchemy import delete, func

from jangada.accounts.models import Session, SignInFailure
from jangada.runtime import Runtime

KEEP_SESSIONS: Final = timedelta(days=30)
"""How long a session is kept after it expired; so long an address counts as signed in from."""


async def prune(runtime: Runtime) -> None:
    """Delete sessions long expired, and counts of failed sign-ins whose window is over."""
    horizon = runtime.clock.now() - KEEP_SESSIONS
    async with runtime.database.system_transaction("account housekeeping") as session:
        await session.execute(delete(Session).where(Session.expires_at < horizon))
        await session.execute(
            delete(SignInFailure).where(SignInFailure.window_ends_at < func.clock_timestamp())
        )
