"""The sweep: jobs of dead workers start again. It looks at the state of things, not at events.

It is only as good as its view: workers that couldn't beat because PostgreSQL was away are not dead.
So it acts only after it has itself seen PostgreSQL, without a gap, for as long as a worker may be
silent; whoever lives has beaten by then.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, LiteralString
from uuid import UUID

from jangada.jobs.delivery.connection import Connection, indexed_scope
from jangada.jobs.delivery.kinds import settle_kinds
from jangada.jobs.delivery.tickets import ALONE_FROM
from jangada_queue.watch import Watch

SWEPT_AT_ONCE: Final = 1000

# A beat far ahead is from before the clock was set back: whoever lives has beaten again since.
_BURY_SILENT: Final[LiteralString] = """
    DELETE FROM workers WHERE id IN (
        SELECT id FROM workers
        WHERE beat_at NOT BETWEEN %(now)s::timestamptz - %(timeout)s::interval
            AND %(now)s::timestamptz + %(timeout)s::interval
        ORDER BY id FOR UPDATE SKIP LOCKED)
    RETURNING id
"""

# A crash doesn't count as an attempt: crashes have a limit of their own.
_RECOVER: Final[LiteralString] = """
    WITH lost AS (
        SELECT tenant_id, id FROM jobs
        WHERE state = 'running'
            AND NOT EXISTS (SELECT 1 FROM workers WHERE workers.id = jobs.worker_id)
        ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET worker_id = NULL, crashes = crashes + 1, max_attempts = max_attempts + 1,
        state = CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
            WHEN crashes >= %(alone_from)s THEN 'discarded' ELSE 'available' END,
        finished_at = CASE WHEN cancel_requested_at IS NOT NULL OR crashes >= %(alone_from)s
            THEN clock_timestamp() END,
        errors = jsonb_path_query_array(errors || jsonb_build_object(
            'code', CASE WHEN crashes >= %(alone_from)s THEN 'job.poison' ELSE 'job.crashed' END,
            'detail', CASE WHEN crashes >= %(alone_from)s
                THEN 'The worker died while it ran this job, and no other, again: it is given up.'
                ELSE 'The worker died while it ran this job.' END,
            'attempt', attempt, 'at', clock_timestamp()), '$[last - 19 to last]'),
        updated_at = clock_timestamp(), revision = revision + 1
    FROM lost WHERE jobs.tenant_id = lost.tenant_id AND jobs.id = lost.id
    RETURNING jobs.id, jobs.queue, jobs.state
"""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did. `may_act` is False while the view isn't good enough yet.

    Of `recovered` and `discarded` jobs it has the queues, too.
    """

    may_act: bool
    workers: frozenset[UUID] = frozenset()
    recovered: Mapping[UUID, str] = field(default_factory=dict)
    discarded: Mapping[UUID, str] = field(default_factory=dict)

    @property
    def queues(self) -> frozenset[str]:
        """Those in which something may start now."""
        return frozenset(self.recovered.values())


async def sweep(connection: Connection, watch: Watch) -> Swept:
    """Declare silent workers dead and make the jobs of missing ones available, in one transaction.

    A job that crashes its process again although it ran alone there is discarded as poison.
    """
    async with indexed_scope(connection, "sweep"):
        row = await (await connection.execute("SELECT clock_timestamp()")).fetchone()
        if row is None or not watch.see(row[0], time.monotonic()):
            return Swept(may_act=False)
        # The moment that the watch has judged: the clock may be set at any time.
        silent = await connection.execute(_BURY_SILENT, {"now": row[0], "timeout": watch.timeout})
        workers = frozenset(row[0] for row in await silent.fetchall())
        if workers:
            await settle_kinds(connection)
        lost = await connection.execute(
            _RECOVER, {"limit": SWEPT_AT_ONCE, "alone_from": ALONE_FROM}
        )
        rows = await lost.fetchall()
    return Swept(
        may_act=True,
        workers=workers,
        recovered={id_: queue for id_, queue, state in rows if state == "available"},
        discarded={id_: queue for id_, queue, state in rows if state == "discarded"},
    )
