"""The grant: the one statement that gives a worker the right to run jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg.rows import class_row

from jangada.jobs.delivery.connection import Connection, indexed_scope
from jangada.jobs.delivery.tickets import ALONE_FROM, Ticket

# Rows are locked in the order of their ids, so that overlapping batches cannot deadlock; a row that
# somebody else holds is left to them (its ticket is forgotten, and published again if need be).
_GRANT: Final[LiteralString] = """
    WITH wanted AS (
        SELECT * FROM unnest(%(tenants)s::uuid[], %(ids)s::uuid[], %(attempts)s::integer[])
            AS w (tenant_id, id, attempt)
    ), granted AS (
        SELECT jobs.tenant_id, jobs.id FROM jobs
        JOIN wanted ON wanted.tenant_id = jobs.tenant_id AND wanted.id = jobs.id
        WHERE jobs.attempt = wanted.attempt AND jobs.state = 'available'
            AND (jobs.crashes < %(alone_from)s OR %(is_alone)s)
        ORDER BY jobs.id FOR UPDATE OF jobs SKIP LOCKED
    )
    UPDATE jobs SET state = 'running', attempt = attempt + 1, worker_id = %(worker)s,
        started_at = clock_timestamp(), updated_at = clock_timestamp(), revision = revision + 1,
        progress_done = NULL, progress_total = NULL
    FROM granted
    WHERE jobs.tenant_id = granted.tenant_id AND jobs.id = granted.id
        AND EXISTS (SELECT 1 FROM workers WHERE workers.id = %(worker)s)
    RETURNING jobs.tenant_id, jobs.id AS job_id, jobs.kind, jobs.queue, jobs.args, jobs.attempt,
        jobs.max_attempts, jobs.crashes, jsonb_array_length(jobs.errors) AS failures,
        jobs.request_id, jobs.traceparent,
        extract(epoch FROM jobs.started_at - jobs.scheduled_at)::float AS waited_seconds
"""


@dataclass(frozen=True, slots=True)
class GrantedJob:
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

    @property
    def key(self) -> str:
        """Names this start among all."""
        return f"{self.job_id}:{self.attempt}"


async def grant(
    connection: Connection, worker_id: UUID, tickets: Sequence[Ticket], *, is_alone: bool = False
) -> list[GrantedJob]:
    """Start these jobs on a worker, and answer those that are now ours.

    A ticket without an answer is a duplicate, of a job that was cancelled or taken, or of one that
    must run alone. A worker that was declared dead gets nothing.
    """
    parameters = {
        "tenants": [ticket.tenant_id for ticket in tickets],
        "ids": [ticket.job_id for ticket in tickets],
        "attempts": [ticket.attempt for ticket in tickets],
        "worker": worker_id,
        "is_alone": is_alone,
        "alone_from": ALONE_FROM,
    }
    async with (
        indexed_scope(connection, "grant"),
        connection.cursor(row_factory=class_row(GrantedJob)) as cursor,
    ):
        await cursor.execute(_GRANT, parameters)
        return await cursor.fetchall()
