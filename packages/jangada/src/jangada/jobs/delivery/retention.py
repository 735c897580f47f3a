"""Forgetting finished jobs once their retention is over, a batch and a short transaction at a time.

A batch walks the index of finished jobs from where the one before ended: what was deleted stays in
the index until PostgreSQL vacuums it, and while somebody keeps an old snapshot every walk from the
start would look at all of it again. It locks nothing that delivery touches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, LiteralString

from jangada.jobs.delivery.connection import Connection, indexed_scope
from jangada.jobs.models import JobState

PRUNED_AT_ONCE: Final = 1000

# The states are written out: a plan made for any state could not use the partial index. Likewise
# the sub-select: a bare clock_timestamp() changes from row to row and bounds no walk of an index.
_PRUNE: Final[LiteralString] = """
    WITH deleted AS (
        DELETE FROM jobs WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM jobs
            WHERE state = '{state}' AND NOT kept AND finished_at >= %(since)s
                AND finished_at < (SELECT clock_timestamp() - %(retention)s::interval)
            ORDER BY finished_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
        RETURNING tenant_id, id, unique_key, finished_at
    ), freed AS (
        DELETE FROM job_unique_keys AS taken USING deleted
        WHERE deleted.unique_key IS NOT NULL AND taken.tenant_id = deleted.tenant_id
            AND taken.key = deleted.unique_key AND taken.job_id = deleted.id
    )
    SELECT count(*), max(finished_at), clock_timestamp() - %(retention)s::interval FROM deleted
"""

_STATEMENTS: Final[Mapping[JobState, LiteralString]] = {
    JobState.COMPLETED: _PRUNE.format(state="completed"),
    JobState.CANCELLED: _PRUNE.format(state="cancelled"),
    JobState.DISCARDED: _PRUNE.format(state="discarded"),
}

BEGINNING: Final = datetime.fromisoformat("0001-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a batch did: how many jobs it deleted, and the end of the last of them.

    `behind` is how long ago the next one should have gone; nothing where none is left.
    """

    jobs: int
    until: datetime
    behind: timedelta


async def prune(
    connection: Connection,
    state: JobState,
    retention: timedelta,
    *,
    since: datetime = BEGINNING,
    limit: int = PRUNED_AT_ONCE,
) -> Pruned:
    """Delete jobs that ended in this final state, since then and longer ago than the retention."""
    parameters = {"since": since, "retention": retention, "limit": limit}
    async with indexed_scope(connection, "retention"):
        (row,) = await (await connection.execute(_STATEMENTS[state], parameters)).fetchall()
    jobs, last, due = row
    is_full = jobs >= limit
    return Pruned(jobs, last or since, due - last if is_full else timedelta(0))
