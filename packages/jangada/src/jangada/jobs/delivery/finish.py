"""The end of attempts: one fenced statement for any number of jobs and any mix of endings."""

from collections.abc import Sequence
from typing import Final, LiteralString
from uuid import UUID

from jangada.jobs.delivery.connection import Connection, probing_statement
from jangada.jobs.delivery.policy import Ending, encode_error

# Rows are locked in the order of their ids, each by one probe of the primary key (see the grant).
# A job that would run again although somebody asked to cancel it is cancelled instead.
_FINISH: Final[LiteralString] = """
    WITH ended AS (
        SELECT * FROM unnest(%(tenants)s::uuid[], %(ids)s::uuid[], %(attempts)s::integer[],
            %(states)s::text[], %(results)s::text[], %(errors)s::text[], %(delays)s::interval[],
            %(extras)s::integer[], %(dones)s::bigint[], %(totals)s::bigint[])
        AS e (tenant_id, id, attempt, state, result, error, delay, extra, done, total)
    ), fenced AS (
        SELECT ended.*, CASE WHEN held.is_to_cancel
            AND ended.state IN ('available', 'scheduled', 'retryable')
            THEN 'cancelled' ELSE ended.state END AS next_state
        FROM ended CROSS JOIN LATERAL (
            SELECT jobs.cancel_requested_at IS NOT NULL AS is_to_cancel FROM jobs
            WHERE jobs.tenant_id = ended.tenant_id AND jobs.id = ended.id
                AND jobs.attempt = ended.attempt AND jobs.state || '' = 'running'
            FOR UPDATE OF jobs
        ) held
    )
    UPDATE jobs SET state = fenced.next_state, worker_id = NULL, result = fenced.result::jsonb,
        errors = CASE WHEN fenced.error IS NULL THEN jobs.errors
            ELSE jsonb_path_query_array(jobs.errors || (fenced.error::jsonb
                || jsonb_build_object('attempt', jobs.attempt, 'at', clock_timestamp())),
                '$[last - 19 to last]') END,
        max_attempts = jobs.max_attempts + coalesce(fenced.extra, 0),
        scheduled_at = coalesce(clock_timestamp() + fenced.delay, jobs.scheduled_at),
        finished_at = CASE WHEN fenced.next_state IN ('completed', 'discarded', 'cancelled')
            THEN clock_timestamp() END,
        progress_done = fenced.done, progress_total = fenced.total,
        updated_at = clock_timestamp(), revision = jobs.revision + 1
    FROM fenced WHERE jobs.tenant_id = fenced.tenant_id AND jobs.id = fenced.id
    RETURNING jobs.id
"""


async def finish(connection: Connection, endings: Sequence[Ending]) -> frozenset[UUID]:
    """Write how attempts ended; answers the jobs that were still theirs.

    Where the answer lacks a job its lease was lost, or it is finished already (a repetition).
    """
    endings = sorted(endings, key=_in_order_of_locks)
    jobs = [ending.job for ending in endings]
    parameters = {
        "tenants": [job.tenant_id for job in jobs],
        "ids": [job.job_id for job in jobs],
        "attempts": [job.attempt for job in jobs],
        "states": [str(ending.state) for ending in endings],
        "results": _unless_all_none([ending.result for ending in endings]),
        "errors": _unless_all_none([encode_error(ending.error) for ending in endings]),
        "delays": _unless_all_none([ending.delay for ending in endings]),
        "extras": _unless_all_none([ending.extra_attempts or None for ending in endings]),
        "dones": _unless_all_none([ending.done for ending in endings]),
        "totals": _unless_all_none([ending.total for ending in endings]),
    }
    async with probing_statement(connection, "finish"):
        cursor = await connection.execute(_FINISH, parameters)
        return frozenset(row[0] for row in await cursor.fetchall())


def _unless_all_none[T](values: list[T | None]) -> list[T | None] | None:
    """Most endings have neither error nor delay: `unnest` makes NULLs of an array that is none."""
    return values if any(value is not None for value in values) else None


def _in_order_of_locks(ending: Ending) -> UUID:
    return ending.job.job_id
