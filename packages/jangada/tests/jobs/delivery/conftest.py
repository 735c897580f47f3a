"""A queue of real rows, and a connection such as dispatchers and workers have."""

from collections.abc import AsyncIterator
from copy import replace
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import update

from jangada.db import Database, new_id, utc_now
from jangada.jobs import service
from jangada.jobs.delivery import workers
from jangada.jobs.delivery.connection import Connection
from jangada.jobs.delivery.grant import GrantedJob, grant
from jangada.jobs.delivery.tickets import Ticket
from jangada.jobs.models import Job
from jangada.jobs.schemas import JobArgs
from jangada.testing import Person, make_person


class Greet(JobArgs):
    kind: ClassVar[str] = "test.greet"
    name: str = "Ana"


@dataclass(slots=True)
class Bench:
    """Rows and workers, as a test needs them."""

    database: Database
    connection: Connection
    person: Person

    async def enqueue(
        self,
        *,
        args: JobArgs | None = None,
        tenant_id: UUID | None = None,
        **how: Any,  # noqa: ANN401 - as enqueue has it
    ) -> Job:
        tenant = tenant_id or self.person.tenant_id
        async with self.database.transaction(tenant) as session:
            return await service.enqueue(session, args or Greet(), tenant_id=tenant, **how)

    async def other_tenant(self) -> UUID:
        return (await make_person(self.database, "Bia")).tenant_id

    async def reload(self, job: Job | GrantedJob) -> Job:
        id_ = job.job_id if isinstance(job, GrantedJob) else job.id
        async with self.database.read(job.tenant_id) as session:
            return await service.get_job(session, job.tenant_id, id_)

    async def change(self, job: Job, **values: Any) -> None:  # noqa: ANN401 - columns
        async with self.database.transaction(job.tenant_id) as session:
            await session.execute(update(Job).where(Job.id == job.id).values(**values))

    async def make_due(self, job: Job) -> None:
        await self.change(job, scheduled_at=utc_now() - timedelta(seconds=1))

    async def ask_to_cancel(self, job: Job) -> None:
        await self.change(job, cancel_requested_at=utc_now())

    async def worker(self, *queues: str, slots: int = 4) -> UUID:
        worker = workers.NewWorker(
            new_id(), "pod", "host", 42, "0.1.0", list(queues) or ["default"], slots
        )
        await workers.register(self.connection, worker)
        return worker.id

    async def start(self, job: Job, worker: UUID | None = None, **how: bool) -> GrantedJob:
        """A granted start of the job."""
        current = await self.reload(job)
        worker = worker or await self.worker()
        (granted,) = await grant(self.connection, worker, [self.ticket(current)], **how)
        return granted

    @staticmethod
    def ticket(job: Job) -> Ticket:
        return Ticket(job.tenant_id, job.id, job.attempt, job.kind)

    @staticmethod
    def limited_ticket(job: Job) -> Ticket:
        return replace(
            Bench.ticket(job), is_limited=True, concurrency_key=job.concurrency_key or ""
        )

    async def silence(self, worker: UUID, seconds: float) -> None:
        await self.connection.execute(
            "UPDATE workers SET beat_at = beat_at - make_interval(secs => %s) WHERE id = %s",
            (seconds, worker),
        )


@pytest.fixture
async def bench(database: Database, person: Person) -> AsyncIterator[Bench]:
    async with database.direct() as connection:
        yield Bench(database, connection, person)
