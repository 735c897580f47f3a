"""Unique jobs: who may be enqueued under a key, decided without a race.

A job without a key costs nothing here. One with a key first looks whether a job that counts has it,
which waits for nobody. Where none has, it takes the key, and whoever else wants the key at the same
moment waits for our transaction's end. Only then, by a statement of its own and so with a snapshot
of its own, is the job that has the key looked at again: the statement that waited would not see the
job that was committed meanwhile. This needs PostgreSQL's default isolation (READ COMMITTED).
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import CursorResult, TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.jobs.schemas import NewJob, Unique


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that wants to be the only one under its key."""

    key: bytes
    job_id: UUID
    unique: Unique

    @property
    def states(self) -> str:
        return ",".join(self.unique.states)


_HELD: Final = text("""
    SELECT wanted.key, jobs.id
    FROM unnest(CAST(:keys AS bytea[]), CAST(:states AS text[]), CAST(:periods AS interval[]))
        AS wanted (key, states, period)
    JOIN job_unique_keys AS taken ON taken.tenant_id = :tenant AND taken.key = wanted.key
    JOIN jobs ON jobs.tenant_id = :tenant AND jobs.id = taken.job_id
    WHERE jobs.state = ANY (string_to_array(wanted.states, ','))
        AND (wanted.period IS NULL OR taken.taken_at > clock_timestamp() - wanted.period)
""")

# A key that somebody has is locked although nothing is written to it. The order is one for all, so
# that batches with the same keys wait for each other instead of deadlocking.
_TAKE: Final = text("""
    INSERT INTO job_unique_keys (tenant_id, key, job_id)
    SELECT :tenant, wanted.key, wanted.job_id
    FROM unnest(CAST(:keys AS bytea[]), CAST(:ids AS uuid[])) AS wanted (key, job_id)
    ORDER BY wanted.key
    ON CONFLICT (tenant_id, key) DO UPDATE SET job_id = excluded.job_id WHERE false
    RETURNING key, job_id
""")

_TAKE_OVER: Final = text("""
    UPDATE job_unique_keys SET job_id = wanted.job_id, taken_at = clock_timestamp()
    FROM unnest(CAST(:keys AS bytea[]), CAST(:ids AS uuid[])) AS wanted (key, job_id)
    WHERE job_unique_keys.tenant_id = :tenant AND job_unique_keys.key = wanted.key
    RETURNING job_unique_keys.key, job_unique_keys.job_id
""")


def unique_key(job: NewJob, args: Mapping[str, Any], unique: Unique) -> bytes:
    """What is the same for two jobs that are alike. Raises `ValueError` for an unknown argument."""
    names: Collection[str] = args if unique.by_args is True else unique.by_args or ()
    if unknown := sorted(set(names) - args.keys()):
        raise ValueError(f"{job.args.kind} has no argument {', '.join(unknown)} to be unique by")
    alike = [
        job.args.kind,
        {name: args[name] for name in names},
        job.queue_name if unique.by_queue else None,
    ]
    return hashlib.sha256(json.dumps(alike, sort_keys=True).encode()).digest()


async def claim(
    session: AsyncSession, tenant_id: UUID, claims: Sequence[Claim]
) -> dict[bytes, UUID]:
    """Which job has each key: the one that claims it, or one that had it before and counts."""
    first: dict[bytes, Claim] = {}
    for each in claims:
        first.setdefault(each.key, each)
    owners: dict[bytes, UUID] = {}
    for statement in (_HELD, _TAKE, _HELD, _TAKE_OVER):
        if left := [first[key] for key in first.keys() - owners.keys()]:
            owners |= await _asked(session, statement, tenant_id, left)
    return owners


async def _asked(
    session: AsyncSession, statement: TextClause, tenant_id: UUID, claims: Sequence[Claim]
) -> dict[bytes, UUID]:
    values = {
        "tenant": tenant_id,
        "keys": [each.key for each in claims],
        "ids": [each.job_id for each in claims],
        "states": [each.states for each in claims],
        "periods": [each.unique.period for each in claims],
    }
    names = statement.compile().params
    result = await session.execute(statement, {name: values[name] for name in names})
    assert isinstance(result, CursorResult)  # noqa: S101 - it returns rows
    return {bytes(key): job_id for key, job_id in result}
