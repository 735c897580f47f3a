"""Which sessions have ended: an access token dies with its session, within a second, everywhere.

The session row is the truth. A process follows `session_ends` by a poll twice a second, on a
connection of its own that no load on the pool can starve, and holds the ids of sessions whose
tokens may still be about. After any gap it reads them all again. While its knowledge is older than
a second it asks PostgreSQL per request. So the promise needs neither Valkey nor luck: a token that
is accepted at T belongs to a session that had not ended at T - 1 s.
"""

import asyncio
import time
from datetime import timedelta
from typing import Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from sqlalchemy import exists, select

from jangada.accounts.errors import SessionEnded
from jangada.accounts.models import Session
from jangada.accounts.schemas import Principal
from jangada.runtime import Runtime
from jangada.telemetry import get_logger

log = get_logger(__name__)

POLL_EVERY: Final = timedelta(milliseconds=500)
FRESH_FOR: Final = timedelta(seconds=1)
KEEP_AT_LEAST: Final = timedelta(hours=1)
_CLOCK_SKEW: Final = timedelta(minutes=5)
_PRUNE_DEADLINE: Final = timedelta(seconds=10)

# One statement, one snapshot: what commits later has an xid at or above the watermark.
_READ_ON: Final = """
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text,
        array(SELECT session_id FROM session_ends WHERE ended_xid >= %s::xid8)
"""
_READ_ALL: Final = """
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text,
        array(SELECT session_id FROM session_ends WHERE ended_at > clock_timestamp() - %s)
"""
_PRUNE: Final = "DELETE FROM session_ends WHERE ended_at < clock_timestamp() - 2 * %s::interval"


class Revocations:
    """The ended sessions that matter. `follow` runs for as long as the process serves."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        lifetime = runtime.settings.auth.access_token_lifetime
        self._keep = max(lifetime, KEEP_AT_LEAST) + _CLOCK_SKEW
        self._ended: dict[UUID, float] = {}
        self._known_at = float("-inf")

    @property
    def is_fresh(self) -> bool:
        """Whether every end that was committed a second ago is known here."""
        return time.monotonic() - self._known_at <= FRESH_FOR.total_seconds()

    async def ensure_live(self, principal: Principal) -> None:
        """Raise `SessionEnded` if the principal's session has; `Unavailable` if nobody can say."""
        if principal.session_id in self._ended:
            raise _ended()
        if not self.is_fresh and not await self._is_live(principal):
            raise _ended()

    def end(self, session_id: UUID) -> None:
        """Know of an end that this process has just committed, ahead of the feed."""
        self._ended[session_id] = time.monotonic() + self._keep.total_seconds()

    async def _is_live(self, principal: Principal) -> bool:
        async with self._runtime.database.read(principal.tenant_id) as session:
            is_live = await session.scalar(
                select(
                    exists().where(
                        Session.tenant_id == principal.tenant_id,
                        Session.id == principal.session_id,
                        Session.ended_at.is_(None),
                    )
                )
            )
        return bool(is_live)

    async def follow(self) -> None:
        """Keep the knowledge fresh for ever; survives every failure of PostgreSQL."""
        while True:
            try:
                async with self._runtime.database.direct() as connection:
                    await self._poll(connection)
            except Exception as error:  # noqa: BLE001 - requests ask PostgreSQL while this tries again
                log.debug("revocation_feed_lost", error=type(error).__name__)
            await asyncio.sleep(POLL_EVERY.total_seconds())

    async def _poll(self, connection: AsyncConnection[TupleRow]) -> None:
        watermark: str | None = None
        pruned_at = float("-inf")
        while True:
            async with asyncio.timeout(FRESH_FOR.total_seconds()):
                watermark = await self._read(connection, watermark)
            if time.monotonic() - pruned_at > self._keep.total_seconds() / 10:
                pruned_at = time.monotonic()
                await self._prune(connection)
            await asyncio.sleep(POLL_EVERY.total_seconds())

    async def _read(self, connection: AsyncConnection[TupleRow], watermark: str | None) -> str:
        """Read what ended since the watermark (None: all), and return the next one."""
        asked_at = time.monotonic()
        cursor = await (
            connection.execute(_READ_ALL, (self._keep,))
            if watermark is None
            else connection.execute(_READ_ON, (watermark,))
        )
        row = await cursor.fetchone()
        assert row is not None, "a SELECT without FROM has one row"  # noqa: S101 - for mypy
        for session_id in row[1]:
            self.end(session_id)
        # What is known is what was committed before the question, not before the answer.
        self._known_at = asked_at
        return str(row[0])

    async def _prune(self, connection: AsyncConnection[TupleRow]) -> None:
        """Drop ends whose last token has expired, there and here."""
        async with asyncio.timeout(_PRUNE_DEADLINE.total_seconds()):
            await connection.execute(_PRUNE, (self._keep,))
        now = time.monotonic()
        self._ended = {sid: until for sid, until in self._ended.items() if until > now}


def _ended() -> SessionEnded:
    return SessionEnded("The session has ended; sign in again.")
