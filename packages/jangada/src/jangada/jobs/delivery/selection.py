"""Which jobs a round offers: tenants take turns, and priority orders the jobs of one tenant.

The index leads through queue, kind, tenant and lane (the hash of the concurrency key), so a walk
steps over what it doesn't want at one probe each, whatever waits behind it: a kind at its limit, a
tenant's 100,000 jobs, a key that is busy. A round walks to as many tenants as it has room for, from
behind the one at which the last round ended; those that it doesn't reach cost nothing.
"""

import random
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, LiteralString
from uuid import UUID

import msgspec

from jangada.jobs.delivery.allowance import Allowance, measure_tenants
from jangada.jobs.delivery.connection import Connection
from jangada.jobs.delivery.tickets import ALONE_FROM, Ticket

NOBODY: Final = UUID(int=0)
MOST_TENANTS: Final = 1_000
"""How many tenants one round looks at where the limits let none of them start anything."""
MOST_AT_ONCE: Final = 200
"""How many jobs one round chooses; the next one follows at once where there is room for more."""
MOST_LANES: Final = 64
"""How many of a tenant's concurrency keys one round looks at, in each half of the circle."""

_ORDER: Final[LiteralString] = "ORDER BY kind, tenant_id, lane, priority, scheduled_at, id"
_WAITING: Final[LiteralString] = "FROM jobs WHERE queue = %(queue)s AND state = 'available'"

_KINDS: Final[LiteralString] = f"""
    kinds AS (
        (SELECT kind {_WAITING} {_ORDER} LIMIT 1)
        UNION ALL
        SELECT (SELECT kind {_WAITING} AND kind > kinds.kind {_ORDER} LIMIT 1)
        FROM kinds WHERE kind IS NOT NULL
    ), open AS (
        SELECT kind FROM kinds
        WHERE (%(kinds)s::text[] IS NULL OR kind = ANY (%(kinds)s::text[]))
            AND kind <> ALL (%(exhausted)s::text[])
    )"""  # noqa: S608 - made of constants

_NEXT_TENANT: Final[LiteralString] = f"SELECT tenant_id {_WAITING} AND jobs.kind ="

# Tenants ahead of the turn, then from the first one on up to it: once around the circle.
_TENANTS: Final[LiteralString] = f"""
    ahead AS (
        SELECT kind, ({_NEXT_TENANT} open.kind AND tenant_id > %(after)s {_ORDER} LIMIT 1)
            AS tenant_id, 1 AS number
        FROM open
        UNION ALL
        SELECT kind, ({_NEXT_TENANT} ahead.kind AND tenant_id > ahead.tenant_id {_ORDER} LIMIT 1),
            number + 1
        FROM ahead WHERE tenant_id IS NOT NULL AND number < %(tenants)s
    ), behind AS (
        SELECT kind, ({_NEXT_TENANT} open.kind AND tenant_id <= %(after)s {_ORDER} LIMIT 1)
            AS tenant_id, 1 AS number
        FROM open WHERE (SELECT count(DISTINCT tenant_id) FROM ahead) < %(tenants)s
        UNION ALL
        SELECT kind, ({_NEXT_TENANT} behind.kind AND tenant_id > behind.tenant_id
            AND tenant_id <= %(after)s {_ORDER} LIMIT 1), number + 1
        FROM behind WHERE tenant_id IS NOT NULL AND number < %(tenants)s
    ), found AS (
        SELECT 0 AS half, kind, tenant_id FROM ahead WHERE tenant_id IS NOT NULL
        UNION ALL SELECT 1, kind, tenant_id FROM behind WHERE tenant_id IS NOT NULL
    ), seats AS (
        SELECT tenant_id, row_number() OVER (ORDER BY half, tenant_id) AS seat
        FROM (SELECT DISTINCT half, tenant_id FROM found) distinct_tenants
        ORDER BY half, tenant_id LIMIT %(tenants)s
    ), room AS (
        SELECT ceil(%(need)s / greatest(count(*), 1)::numeric)::integer AS each FROM seats
    )"""  # noqa: S608 - made of constants

_NEXT_LANE: Final[LiteralString] = f"SELECT lane {_WAITING}"
_OF_PAIR: Final[LiteralString] = "AND jobs.kind = from_.kind AND jobs.tenant_id = from_.tenant_id"

# From somewhere on the circle of lanes: where there are more than are looked at, each has its turn.
_LANES: Final[LiteralString] = f"""
    lanes AS (
        SELECT kind, tenant_id, seat, ({_NEXT_LANE} {_OF_PAIR} AND lane >= %(lane)s
            {_ORDER} LIMIT 1) AS lane, 1 AS number
        FROM found from_ JOIN seats USING (tenant_id)
        UNION ALL
        SELECT kind, tenant_id, seat, ({_NEXT_LANE} {_OF_PAIR} AND lane > from_.lane
            {_ORDER} LIMIT 1), number + 1
        FROM lanes from_ WHERE lane IS NOT NULL AND number < %(lanes)s
    ), lower_lanes AS (
        SELECT kind, tenant_id, seat, ({_NEXT_LANE} {_OF_PAIR} AND lane < %(lane)s
            {_ORDER} LIMIT 1) AS lane, 1 AS number
        FROM found from_ JOIN seats USING (tenant_id)
        UNION ALL
        SELECT kind, tenant_id, seat, ({_NEXT_LANE} {_OF_PAIR} AND lane > from_.lane
            AND lane < %(lane)s {_ORDER} LIMIT 1), number + 1
        FROM lower_lanes from_ WHERE lane IS NOT NULL AND number < %(lanes)s
    ), all_lanes AS (
        SELECT kind, tenant_id, seat, lane FROM lanes WHERE lane IS NOT NULL
        UNION ALL SELECT kind, tenant_id, seat, lane FROM lower_lanes WHERE lane IS NOT NULL
    )"""  # noqa: S608 - made of constants

# A seat whose jobs are all on offer already has one row without a job: it counts as looked at.
_SELECT: Final[LiteralString] = f"""
    WITH RECURSIVE {_KINDS}, {_TENANTS}, {_LANES}
    SELECT seats.seat, seats.tenant_id, head.id AS job_id, head.attempt, head.kind,
        head.crashes >= %(alone_from)s AS is_alone, head.concurrency_key, head.priority,
        head.scheduled_at
    FROM seats LEFT JOIN (
        SELECT all_lanes.seat, picked.* FROM all_lanes
        LEFT JOIN job_kinds USING (kind)
        CROSS JOIN LATERAL (
            SELECT id, attempt, kind, crashes, coalesce(concurrency_key, '') AS concurrency_key,
                priority, scheduled_at {_WAITING}
                AND jobs.kind = all_lanes.kind AND jobs.tenant_id = all_lanes.tenant_id
                AND lane = all_lanes.lane
                AND NOT (id IN (SELECT unnest(%(on_offer)s::uuid[])))
            {_ORDER}
            LIMIT least((SELECT each FROM room), job_kinds.concurrency_per_key)
        ) picked
    ) head ON head.seat = seats.seat
"""  # noqa: S608 - made of constants


class Candidate(msgspec.Struct, frozen=True):
    """A job that may be offered."""

    tenant_id: UUID
    job_id: UUID
    attempt: int
    kind: str
    is_alone: bool
    concurrency_key: str
    priority: int
    scheduled_at: datetime

    @property
    def place(self) -> tuple[int, datetime, UUID]:
        """Its place among the jobs of its tenant."""
        return self.priority, self.scheduled_at, self.job_id

    def ticket(self, *, is_limited: bool) -> Ticket:
        return Ticket(
            tenant_id=self.tenant_id,
            job_id=self.job_id,
            attempt=self.attempt,
            kind=self.kind,
            is_alone=self.is_alone,
            is_limited=is_limited,
            concurrency_key=self.concurrency_key if is_limited else "",
        )


@dataclass(slots=True)
class Seat:
    """A tenant at its turn, and its first jobs; none where all of them are on offer already."""

    tenant_id: UUID
    jobs: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a round may choose from.

    `after` is the tenant at which the last round ended, `on_offer` are the jobs in the window. With
    `kinds`, only those: what no worker knows waits.
    """

    need: int
    after: UUID = NOBODY
    on_offer: Collection[UUID] = ()
    kinds: Collection[str] = ()


@dataclass(slots=True)
class Choice:
    """What a round offers, and the tenant at which it ended.

    `until_more` is how long it is until a rate limit lets something start that it held back.
    """

    turn: UUID
    tickets: list[Ticket] = field(default_factory=list)
    until_more: timedelta | None = None


def take_turns(
    seats: Iterable[Iterable[Candidate]], need: int, allowance: Allowance
) -> list[Candidate]:
    """One job of each seat in turn, each seat's in their order, until `need` are taken.

    What the allowance refuses is left out and holds up nothing behind it.
    """
    waiting = [deque(seat) for seat in seats]
    taken: list[Candidate] = []
    while waiting and len(taken) < need:
        for jobs in waiting:
            if len(taken) < need and (found := _first_allowed(jobs, allowance)) is not None:
                taken.append(found)
        waiting = [jobs for jobs in waiting if jobs]
    return taken


def _first_allowed(jobs: deque[Candidate], allowance: Allowance) -> Candidate | None:
    while jobs:
        job = jobs.popleft()
        if allowance.take(job.kind, job.tenant_id, job.concurrency_key):
            return job
    return None


async def choose(connection: Connection, queue: str, wish: Wish, allowance: Allowance) -> Choice:
    """What comes next. Where tenants have nothing that the limits allow it looks further on.

    Part of a transaction, in which nobody else chooses for the queue.
    """
    wish = replace(wish, need=min(wish.need, MOST_AT_ONCE))
    choice, looked_at, tenants = Choice(wish.after), 0, wish.need
    while not choice.tickets and looked_at < MOST_TENANTS:
        tenants = min(tenants, MOST_TENANTS - looked_at)
        wish = replace(wish, after=choice.turn)
        seats = await _walk(
            connection, queue, wish, tenants=tenants, exhausted=allowance.exhausted()
        )
        if not seats:
            break
        await measure_tenants(connection, allowance, [seat.tenant_id for seat in seats])
        taken = take_turns([seat.jobs for seat in seats], wish.need, allowance)
        choice.tickets = [job.ticket(is_limited=job.kind in allowance.limits) for job in taken]
        choice.turn = (taken or seats)[-1].tenant_id
        looked_at += len(seats)
        if len(seats) < tenants:
            break
        tenants *= 4
    choice.until_more = allowance.until_more
    return choice


async def _walk(
    connection: Connection, queue: str, wish: Wish, *, tenants: int, exhausted: Collection[str]
) -> list[Seat]:
    """The seats in their order, each with its tenant's first jobs in theirs."""
    parameters = {
        "queue": queue,
        "need": wish.need,
        "after": wish.after,
        "tenants": tenants,
        "kinds": sorted(wish.kinds) or None,
        "exhausted": list(exhausted),
        "on_offer": list(wish.on_offer),
        "lane": random.getrandbits(64) - (1 << 63),
        "lanes": MOST_LANES,
        "alone_from": ALONE_FROM,
    }
    seats: dict[int, Seat] = {}
    for number, tenant, *job in await (await connection.execute(_SELECT, parameters)).fetchall():
        seat = seats.setdefault(number, Seat(tenant))
        if job[0] is not None:
            seat.jobs.append(Candidate(tenant, *job))
    for seat in seats.values():
        seat.jobs.sort(key=_place)
    return [seats[number] for number in sorted(seats)]


def _place(candidate: Candidate) -> tuple[int, datetime, UUID]:
    return candidate.place
