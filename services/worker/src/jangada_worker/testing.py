"""Running jobs inside a test: in its own process and database, one after the other.

What happens to a job is what happens in production, by the same code: it is granted, goes through
the executor's steps, and its end is written, fenced by the attempt. Neither Valkey nor a dispatcher
takes part, so a test waits for nothing.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

import pytest
from sqlalchemy import select, text

from jangada.db import new_id
from jangada.jobs import registry, service
from jangada.jobs.context import JobContext
from jangada.jobs.delivery import dispatch
from jangada.jobs.delivery.connection import Connection
from jangada.jobs.delivery.finish import finish
from jangada.jobs.delivery.grant import GrantedJob, grant
from jangada.jobs.delivery.policy import Ending
from jangada.jobs.delivery.tickets import Ticket
from jangada.jobs.delivery.workers import NewWorker, deregister, register
from jangada.jobs.models import Job, JobState
from jangada.runtime import Runtime
from jangada.testing import FrozenClock
from jangada_worker.executor import Execution, Workshop, execute
from jangada_worker.link import Observation

MOST_ATTEMPTS: Final = 1000

FIRST_IN: Final = (Job.priority, Job.scheduled_at, Job.id)

_TIME_PASSES: Final = (
    text("""
        UPDATE jobs SET scheduled_at = scheduled_at - CAST(:by AS interval)
        WHERE state IN ('scheduled', 'available', 'retryable')
    """),
    text("UPDATE job_unique_keys SET taken_at = taken_at - CAST(:by AS interval)"),
)


@dataclass(frozen=True, slots=True)
class Ran:
    """An attempt that has ended: the job as it is now, and what the handler raised, if it did."""

    job: Job
    error: BaseException | None


@dataclass(slots=True)
class InlineWorker:
    """Runs jobs when the test says so."""

    runtime: Runtime
    connection: Connection
    threads: ThreadPoolExecutor
    id: UUID = field(default_factory=new_id)

    async def run_due(self, *queues: str) -> list[Ran]:
        """Run what is due, and what that enqueues, until nothing is; of these queues, or of all.

        By priority, then first in, first out. What is tried again later, or scheduled, waits for
        `advance`. Raises `UnknownJobKind` for a job whose handler nobody has imported.
        """
        ran: list[Ran] = []
        while ticket := await self._next(queues):
            if len(ran) == MOST_ATTEMPTS:
                raise AssertionError(f"There are still jobs due after {MOST_ATTEMPTS} attempts.")
            ran.append(await self._run(ticket))
        return ran

    async def run(self, job: Job) -> Ran:
        """Run this job now; it must be available."""
        return await self._run(self._ticket(job))

    async def advance(self, by: timedelta) -> None:
        """Let time pass: for what waits in the database, and for a frozen clock."""
        async with self.runtime.database.system_transaction("time passes") as session:
            for statement in _TIME_PASSES:
                await session.execute(statement, {"by": by})
        if isinstance(self.runtime.clock, FrozenClock):
            self.runtime.clock.advance(by)

    async def _next(self, queues: Collection[str]) -> Ticket | None:
        for queue in queues or await dispatch.list_queues(self.connection):
            await dispatch.promote(self.connection, queue)
        first = select(Job).where(Job.state == JobState.AVAILABLE).order_by(*FIRST_IN).limit(1)
        if queues:
            first = first.where(Job.queue.in_(queues))
        async with self.runtime.database.system_transaction("what is due") as session:
            job = await session.scalar(first)
        return self._ticket(job) if job else None

    def _ticket(self, job: Job) -> Ticket:
        registry.get(job.kind)
        return Ticket(job.tenant_id, job.id, job.attempt, job.kind)

    async def _run(self, ticket: Ticket) -> Ran:
        granted = await grant(self.connection, self.id, [ticket], is_alone=True)
        if not granted:
            raise AssertionError(f"Job {ticket.job_id} is not available.")
        execution = self._execution(granted[0])
        # A task of its own: what it binds to the log is none of the test's.
        await asyncio.create_task(execute(execution))
        async with self.runtime.database.read(ticket.tenant_id) as session:
            job = await service.get_job(session, ticket.tenant_id, ticket.job_id)
        return Ran(job, execution.error)

    def _execution(self, job: GrantedJob) -> Execution:
        shop = Workshop(self.runtime, self.threads, self._write, _observe)
        context = JobContext(
            runtime=self.runtime,
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            request_id=job.request_id,
        )
        return Execution(shop, job, context, asyncio.get_running_loop().create_future())

    async def _write(self, ending: Ending) -> bool:
        return ending.job.job_id in await finish(self.connection, [ending])


def _observe(observation: Observation) -> None:
    del observation


@asynccontextmanager
async def open_inline_worker(runtime: Runtime) -> AsyncIterator[InlineWorker]:
    """A worker that PostgreSQL believes in for as long as the block lasts."""
    with ThreadPoolExecutor(1) as threads:
        async with runtime.database.direct() as connection:
            worker = InlineWorker(runtime, connection, threads)
            await register(
                connection,
                NewWorker(worker.id, "test", socket.gethostname(), os.getpid(), "test", [], 1),
            )
            try:
                yield worker
            finally:
                await deregister(connection, [worker.id])


@pytest.fixture
async def inline_worker(runtime: Runtime) -> AsyncIterator[InlineWorker]:
    """A worker on this test's own database."""
    async with open_inline_worker(runtime) as worker:
        yield worker
