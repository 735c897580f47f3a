"""What a handler is given besides its arguments, and the fence that its effects commit under."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from jangada.jobs.errors import LeaseLost
from jangada.jobs.payloads import Result, encode_result
from jangada.runtime import Runtime

type ReportProgress = Callable[[int, int | None], Awaitable[None]]

_COMPLETE: Final[LiteralString] = """
    UPDATE jobs SET state = 'completed', result = CAST(%(result)s AS jsonb), worker_id = NULL,
        finished_at = clock_timestamp(), updated_at = clock_timestamp(), revision = revision + 1,
        progress_done = %(done)s, progress_total = %(total)s
    WHERE tenant_id = %(tenant)s AND id = %(id)s AND attempt = %(attempt)s AND state = 'running'
"""


def _complete(session: Session, completion: dict[str, Any]) -> int:
    """As it is: SQLAlchemy has nothing to add to it. Answers how many rows that were."""
    return session.connection().exec_driver_sql(_COMPLETE, completion).rowcount


async def _ignore(done: int, total: int | None) -> None:
    del done, total


@dataclass(slots=True)
class JobContext:
    """One attempt of one job.

    A handler that writes to PostgreSQL calls `complete` (or `complete_on`) as the last statement of
    its transaction: then its effects and the completion commit together, and a zombie's commit
    fails with `LeaseLost`. A handler that merely returns is completed afterwards by the worker.
    """

    runtime: Runtime
    tenant_id: UUID
    job_id: UUID
    attempt: int
    max_attempts: int
    request_id: str | None = None
    report: ReportProgress = field(default=_ignore, repr=False)
    done: int | None = None
    total: int | None = None
    completed: bool = False

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt: give it to outside services, so that a retry is harmless."""
        return f"{self.tenant_id}:{self.job_id}"

    async def progress(self, done: int, total: int | None = None) -> None:
        """Say how far the job is. Cheap: shown at most ten times a second, stored at the end."""
        self.done, self.total = done, total
        await self.report(done, total)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A transaction in the job's tenant; call `complete` last in the one that ends the job."""
        try:
            async with self.runtime.database.transaction(self.tenant_id) as session:
                yield session
        except BaseException:
            self.completed = False
            raise

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """As `transaction`, with psycopg's own connection and `complete_on`: at half the cost."""
        try:
            async with self.runtime.database.connection(self.tenant_id) as connection:
                yield connection
        except BaseException:
            self.completed = False
            raise

    async def complete(self, session: AsyncSession, result: Result = None) -> None:
        """The completion as the session's last statement.

        Raises `LeaseLost`, and what `encode_result` does.
        """
        self._fenced(await session.run_sync(_complete, self._completion(result)))

    async def complete_on(
        self, connection: AsyncConnection[TupleRow], result: Result = None
    ) -> None:
        """As `complete`, on a `connection`, or a direct one inside `tenant_scope`."""
        cursor = await connection.execute(_COMPLETE, self._completion(result))
        self._fenced(cursor.rowcount)

    def _completion(self, result: Result) -> dict[str, Any]:
        return {
            "result": encode_result(result),
            "done": self.done,
            "total": self.total,
            "tenant": self.tenant_id,
            "id": self.job_id,
            "attempt": self.attempt,
        }

    def _fenced(self, rows: int) -> None:
        if rows != 1:
            raise LeaseLost(f"Attempt {self.attempt} of job {self.job_id} lost its lease.")
        self.completed = True
