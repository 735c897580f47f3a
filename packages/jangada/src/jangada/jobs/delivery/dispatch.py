"""What a dispatcher asks of PostgreSQL: which queues there are, what is due, what may start next.

Publishing leaves no mark here, so there is no order to get wrong: whatever the dispatcher does, a
row stays `available` until a grant takes it.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, LiteralString
from uuid import UUID

from jangada.jobs.delivery.allowance import Usage, measure
from jangada.jobs.delivery.connection import Connection, indexed_scope
from jangada.jobs.delivery.kinds import KindLimits, read_limits
from jangada.jobs.delivery.selection import NOBODY, Choice, Wish, choose
from jangada.jobs.delivery.tickets import Ticket, UnreadableTicket
from jangada_queue.messages import OnOffer
from jangada_queue.statistics import Upstream

PROMOTED_AT_ONCE: Final = 1000
COUNTED_UP_TO: Final = 10_000
WALKED_LANES: Final = 1_000

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

# A bare clock_timestamp() may change from row to row, so it bounds no walk of an index: all that is
# scheduled for tomorrow would be read.
_PROMOTE: Final[LiteralString] = """
    WITH due AS (
        SELECT tenant_id, id FROM jobs
        WHERE queue = %(queue)s AND state IN ('scheduled', 'retryable')
            AND scheduled_at <= (SELECT clock_timestamp())
        ORDER BY scheduled_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET state = 'available', revision = revision + 1, updated_at = clock_timestamp()
    FROM due WHERE jobs.tenant_id = due.tenant_id AND jobs.id = due.id
"""

_BEGIN: Final[LiteralString] = """
    SELECT pg_try_advisory_xact_lock(hashtext('jangada.dispatch'), hashtext(%(queue)s)),
        (SELECT coalesce(sum(slots), 0) FROM workers WHERE %(queue)s = ANY (queues)),
        EXISTS (SELECT 1 FROM job_kinds WHERE is_limited)
"""

# Up to `most` rows are counted and compared, which is all of them but in a long queue. That one is
# walked from lane to lane beside it, as far as `lanes` of them.
_UPSTREAM: Final[LiteralString] = """
    WITH RECURSIVE waiting AS NOT MATERIALIZED (
        SELECT kind, tenant_id, lane, priority, scheduled_at, id
        FROM jobs WHERE queue = %(queue)s AND state = 'available'
    ), counted AS (
        SELECT count(*) AS available, min(scheduled_at) AS oldest
        FROM (SELECT scheduled_at FROM waiting LIMIT %(most)s) first_ones
    ), lanes AS (
        (SELECT kind, tenant_id, lane, 1 AS number FROM waiting
         WHERE (SELECT available FROM counted) >= %(most)s
         ORDER BY kind, tenant_id, lane, priority, scheduled_at, id LIMIT 1)
        UNION ALL
        SELECT next.kind, next.tenant_id, next.lane, number + 1
        FROM lanes CROSS JOIN LATERAL (
            SELECT kind, tenant_id, lane FROM waiting
            WHERE (waiting.kind, waiting.tenant_id, waiting.lane)
                > (lanes.kind, lanes.tenant_id, lanes.lane)
            ORDER BY kind, tenant_id, lane, priority, scheduled_at, id LIMIT 1
        ) next WHERE number < %(lanes)s
    ), heads AS (
        SELECT min(head.scheduled_at) AS oldest
        FROM lanes CROSS JOIN generate_series(1, 4) AS priorities (priority)
        CROSS JOIN LATERAL (
            SELECT scheduled_at FROM waiting
            WHERE waiting.kind = lanes.kind AND waiting.tenant_id = lanes.tenant_id
                AND waiting.lane = lanes.lane AND waiting.priority = priorities.priority
            ORDER BY kind, tenant_id, lane, priority, scheduled_at, id LIMIT 1
        ) head
    )
    SELECT counted.available,
        (SELECT count(*) FROM jobs WHERE queue = %(queue)s AND state = 'running') AS running,
        coalesce(extract(epoch FROM clock_timestamp() - least(counted.oldest, heads.oldest)), 0)
            AS oldest_wait_seconds,
        due.within_10s, due.within_60s
    FROM counted CROSS JOIN heads CROSS JOIN (
        SELECT count(*) AS within_60s,
            count(*) FILTER (WHERE scheduled_at <= clock_timestamp() + interval '10 seconds')
                AS within_10s
        FROM (
            SELECT scheduled_at FROM jobs
            WHERE queue = %(queue)s AND state IN ('scheduled', 'retryable')
                AND scheduled_at <= (SELECT clock_timestamp() + interval '60 seconds')
            ORDER BY scheduled_at LIMIT %(most)s
        ) soonest
    ) due
"""


# In the states' own order of their indexes, so that no other rows are read.
_ASIDE: Final[LiteralString] = """
    SELECT queue, count(*) FILTER (WHERE NOT is_dead), count(*) FILTER (WHERE is_dead) FROM (
        (SELECT queue, false AS is_dead FROM jobs
         WHERE state IN ('scheduled', 'retryable') LIMIT %(most)s)
        UNION ALL
        (SELECT queue, true FROM jobs WHERE state = 'discarded' LIMIT %(most)s)
    ) counted GROUP BY queue
"""


@dataclass(frozen=True, slots=True)
class Aside:
    """Jobs of a queue that wait for nobody: due later or tried again, and discarded ones."""

    delayed: int = 0
    dead: int = 0


async def count_aside(connection: Connection) -> dict[str, Aside]:
    """Of each queue that has any; 10,000 of each sort are counted, over all queues.

    It reads what it counts: for once a minute, not for each look.
    """
    async with indexed_scope(connection, "dispatch"):
        rows = await (await connection.execute(_ASIDE, {"most": COUNTED_UP_TO})).fetchall()
    return {queue: Aside(delayed, dead) for queue, delayed, dead in rows}


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
    """A round in progress: nobody else selects from its queue.

    `slots` is how many jobs the queue's workers run at once.
    """

    connection: Connection
    queue: str
    slots: int
    has_limits: bool

    async def limits(self) -> dict[str, KindLimits]:
        """The limits that hold now, by kind."""
        return await read_limits(self.connection) if self.has_limits else {}

    async def choose(
        self,
        need: int,
        on_offer: OnOffer,
        *,
        limits: Mapping[str, KindLimits],
        kinds: Collection[str] = (),
    ) -> Choice:
        """What to offer next: tenants in turn, from where the last round ended, within the limits.

        With `kinds`, only those: what no worker knows waits here and fills no window. Where there
        are limits, `on_offer` has the messages: what they will start counts already.
        """
        allowance = await measure(self.connection, limits, _promised(on_offer))
        wish = Wish(need, _tenant(on_offer.turn), list(_jobs(on_offer)), kinds)
        return await choose(self.connection, self.queue, wish, allowance)


def _tenant(turn: str) -> UUID:
    """A turn that was lost, or that another release wrote, begins the circle anew."""
    try:
        return UUID(turn)
    except ValueError:
        return NOBODY


def _jobs(on_offer: OnOffer) -> Iterator[UUID]:
    for key in on_offer.keys:
        with suppress(ValueError):
            yield UUID(key.partition(":")[0])


def _promised(on_offer: OnOffer) -> Iterator[Usage]:
    for message in on_offer.messages:
        with suppress(UnreadableTicket):
            ticket = Ticket.read(message)
            yield Usage(ticket.kind, ticket.tenant_id, ticket.concurrency_key, ticket.key)


@asynccontextmanager
async def dispatch_round(connection: Connection, queue: str) -> AsyncIterator[Round | None]:
    """A round on a queue, or None where another dispatcher has it at this moment.

    Whoever holds the queue's lock is its only writer; dying releases it.
    """
    async with indexed_scope(connection, "dispatch"):
        cursor = await connection.execute(_BEGIN, {"queue": queue})
        ((is_held, slots, has_limits),) = await cursor.fetchall()
        yield Round(connection, queue, int(slots), has_limits) if is_held else None


async def upstream(
    connection: Connection, queue: str, *, published_total: int, window: int
) -> Upstream:
    """What waits in PostgreSQL; beyond 10,000 available count and oldest wait mean "at least".

    What is in the window is available still, and was counted when it was published.
    """
    async with indexed_scope(connection, "dispatch"):
        parameters = {"queue": queue, "most": COUNTED_UP_TO, "lanes": WALKED_LANES}
        (row,) = await (await connection.execute(_UPSTREAM, parameters)).fetchall()
    available, running, oldest_wait, due_10s, due_60s = row
    return Upstream(
        available=available,
        running=running,
        oldest_wait_seconds=float(oldest_wait),
        due_10s=due_10s,
        due_60s=due_60s,
        enqueued_total=published_total + max(0, available - window),
    )
