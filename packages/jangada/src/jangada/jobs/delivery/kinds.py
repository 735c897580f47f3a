"""What the workers know of their kinds of jobs, and which limits follow from it.

Each worker brings its kinds when it registers. While releases differ the strictest limit of all
living workers holds, so neither release sees its own exceeded. It is settled in the transactions in
which workers come and go; a kind that no worker knows any more keeps what was said last.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, LiteralString

from psycopg.rows import class_row

from jangada.jobs.delivery.connection import Connection, indexed_scope
from jangada.jobs.schemas import JobArgs

# One after the other, so that each sees what the others have said.
_ALONE: Final[LiteralString] = "SELECT pg_advisory_xact_lock(hashtext('jangada.kinds'))"

# The strictest rate has the fewest starts a second; arrays are compared by their first elements.
_SETTLE: Final[LiteralString] = """
    INSERT INTO job_kinds (kind, queue, max_attempts, is_schedulable, concurrency_limit,
        concurrency_per_key, rate_starts, rate_period, rate_per_tenant)
    SELECT kind, queue, max_attempts, is_schedulable, concurrency_limit, concurrency_per_key,
        rate[2]::integer, make_interval(secs => rate[3]), rate_per_tenant
    FROM (
        SELECT kind, (array_agg(said.queue ORDER BY started_at DESC))[1] AS queue,
            (array_agg(max_attempts ORDER BY started_at DESC))[1] AS max_attempts,
            bool_and(is_schedulable) AS is_schedulable,
            min(concurrency_limit) AS concurrency_limit,
            min(concurrency_per_key) AS concurrency_per_key,
            min(ARRAY[rate_starts / rate_seconds, rate_starts, rate_seconds])
                FILTER (WHERE rate_starts IS NOT NULL) AS rate,
            coalesce(bool_and(rate_per_tenant) FILTER (WHERE rate_starts IS NOT NULL), false)
                AS rate_per_tenant
        FROM workers CROSS JOIN LATERAL jsonb_to_recordset(workers.kinds) AS said (
            kind text, queue text, max_attempts integer, is_schedulable boolean,
            concurrency_limit integer, concurrency_per_key integer,
            rate_starts integer, rate_seconds float8, rate_per_tenant boolean)
        GROUP BY kind
    ) strictest
    ORDER BY kind
    ON CONFLICT (kind) DO UPDATE SET queue = excluded.queue, max_attempts = excluded.max_attempts,
        is_schedulable = excluded.is_schedulable, concurrency_limit = excluded.concurrency_limit,
        concurrency_per_key = excluded.concurrency_per_key, rate_starts = excluded.rate_starts,
        rate_period = excluded.rate_period, rate_per_tenant = excluded.rate_per_tenant
    WHERE (job_kinds.queue, job_kinds.max_attempts, job_kinds.is_schedulable,
            job_kinds.concurrency_limit, job_kinds.concurrency_per_key, job_kinds.rate_starts,
            job_kinds.rate_period, job_kinds.rate_per_tenant)
        IS DISTINCT FROM (excluded.queue, excluded.max_attempts, excluded.is_schedulable,
            excluded.concurrency_limit, excluded.concurrency_per_key, excluded.rate_starts,
            excluded.rate_period, excluded.rate_per_tenant)
"""

_LIMITS: Final[LiteralString] = """
    SELECT kind, concurrency_limit, concurrency_per_key, rate_starts, rate_period, rate_per_tenant
    FROM job_kinds WHERE is_limited
"""

_LOCK: Final[LiteralString] = f"""{_LIMITS}
    AND kind = ANY (%s::text[]) ORDER BY kind FOR NO KEY UPDATE
"""

_PRUNE: Final[LiteralString] = """
    DELETE FROM job_starts USING job_kinds
    WHERE job_kinds.kind = job_starts.kind
        AND (rate_period IS NULL OR at < clock_timestamp() - 2 * rate_period)
"""


@dataclass(frozen=True, slots=True)
class KindFacts:
    """One kind of job as a worker knows it."""

    kind: str
    queue: str
    max_attempts: int
    is_schedulable: bool = False
    concurrency_limit: int | None = None
    concurrency_per_key: int | None = None
    rate_starts: int | None = None
    rate_seconds: float | None = None
    rate_per_tenant: bool = False


def facts_of(args: type[JobArgs]) -> KindFacts:
    """What is declared on the arguments of a kind."""
    concurrency, rate = args.concurrency, args.rate_limit
    return KindFacts(
        kind=args.kind,
        queue=args.queue,
        max_attempts=args.max_attempts,
        is_schedulable=args.is_schedulable,
        concurrency_limit=concurrency.limit if concurrency else None,
        concurrency_per_key=concurrency.per_key if concurrency else None,
        rate_starts=rate.starts if rate else None,
        rate_seconds=rate.per.total_seconds() if rate else None,
        rate_per_tenant=rate.per_tenant if rate else False,
    )


@dataclass(frozen=True, slots=True)
class KindLimits:
    """The limits of a kind that hold now."""

    kind: str
    concurrency_limit: int | None = None
    concurrency_per_key: int | None = None
    rate_starts: int | None = None
    rate_period: timedelta | None = None
    rate_per_tenant: bool = False


async def await_settling(connection: Connection) -> None:
    """Have what follows in this transaction see all that workers have said of their kinds."""
    await connection.execute(_ALONE)


async def settle_kinds(connection: Connection) -> None:
    """Write anew what follows from what the living workers say. Part of a transaction."""
    await await_settling(connection)
    await connection.execute(_SETTLE)


async def read_limits(connection: Connection) -> dict[str, KindLimits]:
    """The kinds that have limits. Part of a transaction."""
    async with connection.cursor(row_factory=class_row(KindLimits)) as cursor:
        await cursor.execute(_LIMITS)
        return {limits.kind: limits for limits in await cursor.fetchall()}


async def lock_limits(connection: Connection, kinds: Collection[str]) -> dict[str, KindLimits]:
    """As `read_limits`, and nobody else is granted such a job before the transaction ends."""
    async with connection.cursor(row_factory=class_row(KindLimits)) as cursor:
        await cursor.execute(_LOCK, (sorted(kinds),))
        return {limits.kind: limits for limits in await cursor.fetchall()}


async def prune_starts(connection: Connection) -> int:
    """Forget starts that no rate limit counts any more; answers how many rows that were."""
    async with indexed_scope(connection, "dispatch"):
        return (await connection.execute(_PRUNE)).rowcount
