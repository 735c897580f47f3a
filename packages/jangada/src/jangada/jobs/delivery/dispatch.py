"""What a dispatcher asks of PostgreSQL: which queues there are, what is due, what may start next.

Publishing leaves no mark here, so there is no order to get wrong: whatever the dispatcher does, a
row stays `available` until a grant takes it.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, LiteralString

from psycopg.rows import class_row

from jangada.jobs.delivery.connection import Connection, indexed_scope
from jangada.jobs.delivery.tickets import ALONE_FROM, Ticket
from jangada_queue.statistics import Upstream

PROMOTED_AT_ONCE: Final = 1000
COUNTED_UP_TO: Final = 10_000

# Skips from one value to the next in the index instead of reading all rows of a long queue.
_SKIPPING: Final[LiteralString] = """
    WITH RECURSIVE available AS (
        (SELECT queue FROM jobs WHERE state = 'available' ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (SELECT queue FROM jobs WHERE state = 'available' AND queue > a.queue
                ORDER BY queue LIMIT 1)
        FROM available a WHERE a.queue IS NOT NULL
    ), due AS (
        (SELECT queue FROM jobs WHERE state IN ('scheduled', 'retryable') ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (SELECT queue FROM jobs
                WHERE state IN ('scheduled', 'retryable') AND queue > d.queue
                ORDER BY queue LIMIT 1)
        FROM due d WHERE d.queue IS NOT NULL
    )
"""

_SURVEY_QUEUES: Final[LiteralString] = """
    SELECT queue, true, NULL::interval FROM available WHERE queue IS NOT NULL
    UNION ALL
    SELECT queue, false, (
        SELECT min(scheduled_at) FROM jobs
        WHERE jobs.queue = due.queue AND state IN ('scheduled', 'retryable')
    ) - clock_timestamp() FROM due WHERE queue IS NOT NULL
"""

_NAME_QUEUES: Final[LiteralString] = """
    SELECT queue FROM available WHERE queue IS NOT NULL
    UNION SELECT queue FROM due WHERE queue IS NOT NULL
    UNION SELECT unnest(queues) FROM workers
"""

_SURVEY: Final[LiteralString] = f"{_SKIPPING}{_SURVEY_QUEUES}"
_QUEUES: Final[LiteralString] = f"{_SKIPPING}{_NAME_QUEUES}"

_PROMOTE: Final[LiteralString] = """
    WITH due AS (
        SELECT tenant_id, id FROM jobs
        WHERE queue = %(queue)s AND state IN ('scheduled', 'retryable')
            AND scheduled_at <= clock_timestamp()
        ORDER BY scheduled_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET state = 'available', revision = revision + 1, updated_at = clock_timestamp()
    FROM due WHERE jobs.tenant_id = due.tenant_id AND jobs.id = due.id
"""

# The whole order of the index is asked for, because the primary key would do for the tenants alone
# and lead through all their finished jobs.
_TENANTS: Final[LiteralString] = """
    WITH RECURSIVE tenants AS (
        (SELECT tenant_id FROM jobs WHERE queue = %(queue)s AND state = 'available'
         ORDER BY tenant_id, priority, scheduled_at, id LIMIT 1)
        UNION ALL
        SELECT (SELECT tenant_id FROM jobs
                WHERE queue = %(queue)s AND state = 'available' AND tenant_id > t.tenant_id
                ORDER BY tenant_id, priority, scheduled_at, id LIMIT 1)
        FROM tenants t WHERE t.tenant_id IS NOT NULL
    )
"""

# The index orders each tenant's jobs; merging the tenants' heads gives the order of the queue.
_HEADS: Final[LiteralString] = """
    SELECT head.tenant_id, head.id AS job_id, head.attempt, head.kind,
        head.crashes >= %(alone_from)s AS is_alone
    FROM tenants CROSS JOIN LATERAL (
        SELECT tenant_id, id, attempt, kind, crashes, priority, scheduled_at FROM jobs
        WHERE queue = %(queue)s AND state = 'available' AND tenant_id = tenants.tenant_id
            AND (%(kinds)s::text[] IS NULL OR kind = ANY (%(kinds)s::text[]))
        ORDER BY priority, scheduled_at, id LIMIT %(limit)s
    ) head
    ORDER BY head.priority, head.scheduled_at, head.id LIMIT %(limit)s
"""

_AVAILABLE: Final[LiteralString] = f"{_TENANTS}{_HEADS}"

_SLOTS: Final[LiteralString] = (
    "SELECT coalesce(sum(slots), 0) FROM workers WHERE %(queue)s = ANY (queues)"
)

_FIGURES: Final[LiteralString] = """
    SELECT
        (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE queue = %(queue)s AND state = 'available'
         LIMIT %(most)s) counted) AS available,
        (SELECT count(*) FROM jobs WHERE queue = %(queue)s AND state = 'running') AS running,
        (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(head.scheduled_at)), 0)
         FROM tenants CROSS JOIN generate_series(1, 4) AS priorities (priority)
         CROSS JOIN LATERAL (
            SELECT scheduled_at FROM jobs
            WHERE queue = %(queue)s AND state = 'available' AND tenant_id = tenants.tenant_id
                AND priority = priorities.priority
            ORDER BY scheduled_at LIMIT 1
         ) head) AS oldest_wait_seconds,
        (SELECT count(*) FROM (SELECT 1 FROM jobs
         WHERE queue = %(queue)s AND state IN ('scheduled', 'retryable')
            AND scheduled_at <= clock_timestamp() + interval '60 seconds'
         LIMIT %(most)s) counted) AS due_60s
"""

_UPSTREAM: Final[LiteralString] = f"{_TENANTS}{_FIGURES}"


async def list_queues(connection: Connection) -> list[str]:
    """Every queue that has waiting jobs or living workers."""
    async with indexed_scope(connection, "dispatch"):
        cursor = await connection.execute(_QUEUES)
        return sorted(row[0] for row in await cursor.fetchall())


@dataclass(frozen=True, slots=True)
class Survey:
    """Which queues have jobs that may start, and how long it is until others' next one is due."""

    available: frozenset[str]
    until_due: Mapping[str, timedelta]

    @property
    def due(self) -> frozenset[str]:
        return frozenset(queue for queue, wait in self.until_due.items() if wait <= timedelta(0))


async def survey(connection: Connection) -> Survey:
    """Look at all queues, in a few index probes each however long they are."""
    async with indexed_scope(connection, "dispatch"):
        rows = await (await connection.execute(_SURVEY)).fetchall()
    return Survey(
        available=frozenset(queue for queue, is_available, _ in rows if is_available),
        until_due={queue: wait for queue, is_available, wait in rows if not is_available},
    )


async def promote(connection: Connection, queue: str) -> int:
    """Make due jobs available, by PostgreSQL's clock; answers how many."""
    async with indexed_scope(connection, "dispatch"):
        parameters = {"queue": queue, "limit": PROMOTED_AT_ONCE}
        return (await connection.execute(_PROMOTE, parameters)).rowcount


@dataclass(frozen=True, slots=True)
class Round:
    """A round in progress: nobody else selects from its queue."""

    connection: Connection
    queue: str

    async def slots(self) -> int:
        """How many jobs the queue's workers run at once."""
        row = await (await self.connection.execute(_SLOTS, {"queue": self.queue})).fetchone()
        return int(row[0]) if row else 0

    async def available(self, limit: int, kinds: Collection[str] = ()) -> list[Ticket]:
        """What may start next, first in, first out within a priority.

        With `kinds`, only those: what no worker knows waits here and fills no window.
        """
        parameters = {
            "queue": self.queue,
            "limit": limit,
            "kinds": sorted(kinds) or None,
            "alone_from": ALONE_FROM,
        }
        async with self.connection.cursor(row_factory=class_row(Ticket)) as cursor:
            await cursor.execute(_AVAILABLE, parameters)
            return await cursor.fetchall()


@asynccontextmanager
async def dispatch_round(connection: Connection, queue: str) -> AsyncIterator[Round | None]:
    """A round on a queue, or None where another dispatcher has it at this moment.

    Whoever holds the queue's lock is its only writer; dying releases it.
    """
    async with indexed_scope(connection, "dispatch"):
        cursor = await connection.execute(
            "SELECT pg_try_advisory_xact_lock(hashtext('jangada.dispatch'), hashtext(%s))", (queue,)
        )
        row = await cursor.fetchone()
        yield Round(connection, queue) if row and row[0] else None


async def upstream(
    connection: Connection, queue: str, *, published_total: int, window: int
) -> Upstream:
    """What waits in PostgreSQL; beyond 10,000 available the count means "at least".

    What is in the window is available still, and was counted when it was published.
    """
    async with indexed_scope(connection, "dispatch"):
        parameters = {"queue": queue, "most": COUNTED_UP_TO}
        (row,) = await (await connection.execute(_UPSTREAM, parameters)).fetchall()
    available, running, oldest_wait, due = row
    return Upstream(
        available=available,
        running=running,
        oldest_wait_seconds=float(oldest_wait),
        due_60s=due,
        enqueued_total=published_total + max(0, available - window),
    )
