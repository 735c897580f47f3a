"""Workers as PostgreSQL knows them: a row per process, alive as long as it is beaten."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

import orjson
from psycopg.rows import class_row

from jangada.jobs.delivery.connection import Connection, be_brief, indexed_scope
from jangada.jobs.delivery.kinds import KindFacts, await_settling, settle_kinds
from jangada.scopes import system_scope

_REGISTER: Final[LiteralString] = """
    INSERT INTO workers (id, pod_uid, host, pid, version, queues, slots, kinds)
    VALUES (%(id)s, %(pod_uid)s, %(host)s, %(pid)s, %(version)s, %(queues)s, %(slots)s, %(kinds)s)
    ON CONFLICT (id) DO UPDATE SET beat_at = clock_timestamp()
"""

_BEAT: Final[LiteralString] = (
    "UPDATE workers SET beat_at = clock_timestamp() WHERE id = ANY (%s::uuid[]) RETURNING id"
)

_CANCELS: Final[LiteralString] = """
    SELECT id FROM jobs
    WHERE worker_id = ANY (%s::uuid[]) AND state = 'running' AND cancel_requested_at IS NOT NULL
"""

_RUNNING: Final[LiteralString] = """
    SELECT id AS job_id, kind,
        extract(epoch FROM clock_timestamp() - started_at)::float AS seconds
    FROM jobs WHERE worker_id = %s AND state = 'running'
"""

_HAND_BACK: Final[LiteralString] = """
    UPDATE jobs SET worker_id = NULL, max_attempts = max_attempts + 1,
        state = CASE WHEN cancel_requested_at IS NULL THEN 'available' ELSE 'cancelled' END,
        finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN clock_timestamp() END,
        updated_at = clock_timestamp(), revision = revision + 1
    WHERE worker_id = ANY (%(workers)s::uuid[]) AND state = 'running'
        AND NOT (id = ANY (%(keep)s::uuid[]))
    RETURNING queue
"""

_FORGET: Final[LiteralString] = "DELETE FROM workers WHERE id = ANY (%s::uuid[])"


@dataclass(frozen=True, slots=True)
class NewWorker:
    """A worker process that wants to run jobs. Each one has an id that nobody had before."""

    id: UUID
    pod_uid: str
    host: str
    pid: int
    version: str
    queues: Sequence[str]
    slots: int
    kinds: Sequence[KindFacts] = ()


@dataclass(frozen=True, slots=True)
class Beat:
    """Which of the workers live, in PostgreSQL's eyes, and which of their jobs are to stop."""

    alive: frozenset[UUID]
    cancelled: frozenset[UUID]


async def register(connection: Connection, worker: NewWorker) -> None:
    """From here on the worker may be granted jobs, for as long as it is beaten.

    The limits that it brings along hold for all workers from here on.
    """
    async with system_scope(connection, "beat"):
        await be_brief(connection)
        await await_settling(connection)
        await connection.execute(
            _REGISTER,
            {
                "id": worker.id,
                "pod_uid": worker.pod_uid,
                "host": worker.host,
                "pid": worker.pid,
                "version": worker.version,
                "queues": list(worker.queues),
                "slots": worker.slots,
                "kinds": orjson.dumps(worker.kinds).decode(),
            },
        )
        await settle_kinds(connection)


async def beat(connection: Connection, workers: Collection[UUID]) -> Beat:
    """Say that these workers live. One that is missing in the answer was declared dead."""
    ids = [list(workers)]
    async with indexed_scope(connection, "beat"):
        alive = await (await connection.execute(_BEAT, ids)).fetchall()
        cancelled = await (await connection.execute(_CANCELS, ids)).fetchall()
    return Beat(frozenset(row[0] for row in alive), frozenset(row[0] for row in cancelled))


async def find_cancelled(connection: Connection, workers: Collection[UUID]) -> frozenset[UUID]:
    """Which of the workers' jobs are to stop."""
    async with indexed_scope(connection, "beat"):
        rows = await (await connection.execute(_CANCELS, [list(workers)])).fetchall()
    return frozenset(row[0] for row in rows)


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that runs, and for how long it has, by PostgreSQL's clock."""

    job_id: UUID
    kind: str
    seconds: float


async def find_running(connection: Connection, worker: UUID) -> list[RunningJob]:
    """What runs on a worker."""
    async with (
        indexed_scope(connection, "beat"),
        connection.cursor(row_factory=class_row(RunningJob)) as cursor,
    ):
        await cursor.execute(_RUNNING, [worker])
        return await cursor.fetchall()


async def bury(connection: Connection, workers: Collection[UUID]) -> None:
    """These processes have died: the next sweep deals with their jobs, without waiting longer."""
    async with system_scope(connection, "beat"):
        await be_brief(connection)
        await connection.execute(_FORGET, [list(workers)])
        await settle_kinds(connection)


async def deregister(connection: Connection, workers: Collection[UUID]) -> list[str]:
    """These processes have ended in order: what they still held is available at once.

    Answers the queues that got work back.
    """
    async with indexed_scope(connection, "beat"):
        queues = await _hand_back(connection, workers, keep=())
        await connection.execute(_FORGET, [list(workers)])
        await settle_kinds(connection)
    return queues


async def hand_back(
    connection: Connection, workers: Collection[UUID], *, keep: Collection[UUID] = ()
) -> list[str]:
    """Make what these workers hold, but for the jobs to `keep`, available for others.

    A worker calls it after a grant that failed, with everything that it runs and no grant under
    way: a grant whose answer was lost left rows that say "running" while nothing runs them.
    Answers the queues that got work back.
    """
    async with indexed_scope(connection, "beat"):
        return await _hand_back(connection, workers, keep=keep)


async def _hand_back(
    connection: Connection, workers: Collection[UUID], *, keep: Collection[UUID]
) -> list[str]:
    parameters = {"workers": list(workers), "keep": list(keep)}
    rows = await (await connection.execute(_HAND_BACK, parameters)).fetchall()
    return sorted({row[0] for row in rows})
