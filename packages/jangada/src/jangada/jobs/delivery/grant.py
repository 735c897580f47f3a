"""The grant: the one statement that gives a worker the right to run jobs.

Kinds with limits have their rows in `job_kinds` locked first, one worker at a time, and what runs
and was started is counted under that lock: no limit is ever exceeded, whoever published what.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

import msgspec
from psycopg.rows import class_row

from jangada.jobs.delivery.allowance import count_granted, measure, measure_tenants
from jangada.jobs.delivery.connection import Connection, probing_scope, probing_statement
from jangada.jobs.delivery.kinds import lock_limits
from jangada.jobs.delivery.tickets import ALONE_FROM, Ticket

# Rows are locked in the order of their ids, so that overlapping batches cannot deadlock; a row that
# somebody else holds is left to them (its ticket is forgotten, and published again if need be).
# Each ticket is one probe of the primary key, whatever statistics say: nothing can be joined to a
# lateral subquery that locks before it is asked row by row, and `state || ''` matches no partial
# index. (Joined, all that was available was read for each batch: 380 µs a job instead of 30.)
_GRANT: Final[LiteralString] = """
    WITH granted AS (
        SELECT held.*
        FROM unnest(%(tenants)s::uuid[], %(ids)s::uuid[], %(attempts)s::integer[])
            AS wanted (tenant_id, id, attempt)
        CROSS JOIN LATERAL (
            SELECT jobs.tenant_id, jobs.id FROM jobs
            WHERE jobs.tenant_id = wanted.tenant_id AND jobs.id = wanted.id
                AND jobs.attempt = wanted.attempt AND jobs.state || '' = 'available'
                AND (jobs.crashes < %(alone_from)s OR %(is_alone)s)
                AND (%(is_limited)s OR NOT EXISTS (
                    SELECT 1 FROM job_kinds WHERE job_kinds.kind = jobs.kind AND is_limited))
            FOR UPDATE OF jobs SKIP LOCKED
        ) held
    )
    UPDATE jobs SET state = 'running', attempt = attempt + 1, worker_id = %(worker)s,
        started_at = clock_timestamp(), updated_at = clock_timestamp(), revision = revision + 1,
        progress_done = NULL, progress_total = NULL
    FROM granted
    WHERE jobs.tenant_id = granted.tenant_id AND jobs.id = granted.id
        AND EXISTS (SELECT 1 FROM workers WHERE workers.id = %(worker)s)
    RETURNING jobs.tenant_id, jobs.id AS job_id, jobs.kind, jobs.queue, jobs.args, jobs.attempt,
        jobs.max_attempts, jobs.crashes, jsonb_array_length(jobs.errors) AS failures,
        jobs.request_id, jobs.traceparent, %(is_limited)s AS is_limited,
        extract(epoch FROM jobs.started_at - jobs.scheduled_at)::float AS waited_seconds
"""

_HOLD: Final[LiteralString] = """
    SELECT jobs.tenant_id, jobs.id AS job_id, jobs.attempt, kind,
        coalesce(concurrency_key, '') AS concurrency_key
    FROM jobs
    JOIN unnest(%(tenants)s::uuid[], %(ids)s::uuid[], %(attempts)s::integer[])
        WITH ORDINALITY AS w (tenant_id, id, attempt, place) USING (tenant_id, id)
    WHERE jobs.attempt = w.attempt AND jobs.state = 'available'
        AND (jobs.crashes < %(alone_from)s OR %(is_alone)s)
        AND EXISTS (SELECT 1 FROM workers WHERE workers.id = %(worker)s)
    ORDER BY w.place FOR UPDATE OF jobs SKIP LOCKED
"""


class GrantedJob(msgspec.Struct, frozen=True):
    """A start of a job that is ours to run: `attempt` is the fence of all its effects."""

    tenant_id: UUID
    job_id: UUID
    kind: str
    queue: str
    args: dict[str, Any]
    attempt: int
    max_attempts: int
    crashes: int
    failures: int
    request_id: str | None
    traceparent: str | None
    waited_seconds: float
    is_limited: bool = False

    @property
    def key(self) -> str:
        """Names this start among all."""
        return f"{self.job_id}:{self.attempt}"


async def grant(
    connection: Connection, worker_id: UUID, tickets: Sequence[Ticket], *, is_alone: bool = False
) -> list[GrantedJob]:
    """Start these jobs on a worker, and answer those that are now ours.

    A ticket without an answer is a duplicate, of a job that was cancelled or taken, of one that
    must run alone, or of one that is over a limit: also of a kind that got its first limit after
    the ticket was written. A worker that was declared dead gets nothing.
    """
    asked = _Asked(connection, worker_id, is_alone)
    free = [ticket for ticket in tickets if not ticket.is_limited]
    limited = [ticket for ticket in tickets if ticket.is_limited]
    granted = []
    if free:
        async with probing_statement(connection, "grant"):
            granted += await asked.grant(free, is_limited=False)
    if limited:
        async with probing_scope(connection, "grant"):
            granted += await asked.grant_limited(limited)
    return granted


@dataclass(frozen=True, slots=True)
class _Asked:
    """For whom a grant is, in the transaction that its connection has open."""

    connection: Connection
    worker_id: UUID
    is_alone: bool

    async def grant(self, tickets: Sequence[Ticket], *, is_limited: bool) -> list[GrantedJob]:
        in_order = sorted(tickets, key=_in_order_of_locks)
        parameters = {**self._parameters(in_order), "is_limited": is_limited}
        async with self.connection.cursor(row_factory=class_row(GrantedJob)) as cursor:
            await cursor.execute(_GRANT, parameters)
            return await cursor.fetchall()

    async def grant_limited(self, tickets: Sequence[Ticket]) -> list[GrantedJob]:
        """Grant as many as the limits allow, with nobody else between the counting and the end."""
        limits = await lock_limits(self.connection, {ticket.kind for ticket in tickets})
        allowance = await measure(self.connection, limits)
        held = await self._hold(tickets)
        await measure_tenants(self.connection, allowance, {each.tenant_id for each in held})
        allowed = [
            ticket
            for ticket in held
            if allowance.take(ticket.kind, ticket.tenant_id, ticket.concurrency_key)
        ]
        granted = await self.grant(allowed, is_limited=True) if allowed else []
        jobs = [(job.tenant_id, job.job_id) for job in granted]
        await count_granted(self.connection, allowance, jobs)
        return granted

    async def _hold(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Those that could start, as their rows have them, in the order of the tickets."""
        async with self.connection.cursor(row_factory=class_row(Ticket)) as cursor:
            await cursor.execute(_HOLD, self._parameters(tickets))
            return await cursor.fetchall()

    def _parameters(self, tickets: Sequence[Ticket]) -> dict[str, Any]:
        return {
            "tenants": [ticket.tenant_id for ticket in tickets],
            "ids": [ticket.job_id for ticket in tickets],
            "attempts": [ticket.attempt for ticket in tickets],
            "worker": self.worker_id,
            "is_alone": self.is_alone,
            "alone_from": ALONE_FROM,
        }


def _in_order_of_locks(ticket: Ticket) -> UUID:
    return ticket.job_id
