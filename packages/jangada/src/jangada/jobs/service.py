"""Verbs on jobs. Each runs in the caller's tenant session and takes effect with its commit."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, case, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from jangada import crud
from jangada.commits import notice, tally
from jangada.crud import Page, PageRequest, Sort
from jangada.db import new_id
from jangada.jobs import batches, payloads
from jangada.jobs.checks import check
from jangada.jobs.delivery.tickets import Ticket
from jangada.jobs.errors import JobAlreadyFinished, JobNotFound, JobNotRetryable
from jangada.jobs.metrics import ENQUEUED
from jangada.jobs.models import FINAL_STATES, WAITING_STATES, Job, JobState
from jangada.jobs.schemas import DEFAULT_PRIORITY, JobArgs, JobFilter, NewJob, Unique
from jangada.jobs.tracing import current_traceparent
from jangada.jobs.uniqueness import Claim, claim, unique_key
from jangada.telemetry import current_request_id

RETRYABLE_BY_HAND: Final = (JobState.DISCARDED, JobState.CANCELLED, *WAITING_STATES)


async def enqueue(  # noqa: PLR0913 - each is a property of the job
    session: AsyncSession,
    args: JobArgs,
    *,
    tenant_id: UUID,
    id: UUID | None = None,
    queue: str | None = None,
    scheduled_at: datetime | None = None,
    max_attempts: int | None = None,
    priority: int = DEFAULT_PRIORITY,
    tags: Collection[str] = (),
    metadata: Mapping[str, Any] = MappingProxyType({}),
    unique: Unique | None = None,
    concurrency_key: str | None = None,
    created_by: UUID | None = None,
) -> Job:
    """Insert a job in the caller's transaction: no commit, no job.

    After the commit, best effort, a worker is offered it where nothing else waits, or a dispatcher
    is woken. With `scheduled_at` it waits until then by PostgreSQL's clock. Where a `unique` job
    like it counts already, that one is the answer and says so: `is_duplicate`; another transaction
    about to enqueue one is waited for. `concurrency_key` overrides the one that the kind makes.

    Raises `InvalidJob`, `JobTooLarge` beyond 64 KiB of JSON, `JobNotStorable` and
    `InvalidConcurrencyKey`.
    """
    new = NewJob(
        args,
        id=id or new_id(),
        queue=queue,
        scheduled_at=scheduled_at,
        max_attempts=max_attempts,
        priority=priority,
        tags=tags,
        metadata=metadata,
        unique=unique,
        concurrency_key=concurrency_key,
    )
    check(new)
    job = _row(new, tenant_id, created_by)
    if (by := new.unique_by) is not None:
        job.unique_key = unique_key(new, job.args, by)
        owners = await claim(session, tenant_id, [Claim(job.unique_key, job.id, by)])
        if (owner := owners[job.unique_key]) != job.id:
            return await _duplicate(session, tenant_id, owner)
    is_simple = scheduled_at is None and args.concurrency is None and args.rate_limit is None
    await insert(session, job, at_once=is_simple)
    if scheduled_at is not None:
        await session.refresh(job, ["state"])
    return job


async def enqueue_many(
    session: AsyncSession,
    jobs: Iterable[JobArgs | NewJob],
    *,
    tenant_id: UUID,
    created_by: UUID | None = None,
) -> list[UUID]:
    """Insert jobs in the caller's transaction, by one statement; answers their ids in order.

    As `enqueue` for each: where a unique job like one of them counts already, one from earlier in
    the batch, too, that one's id stands in its place. Raises what `enqueue` does, for the first job
    that is wrong; then none is inserted. A batch of some thousands is as fast as any larger one.
    """
    batch = batches.Batch()
    for job in jobs:
        batch.add(job)
    if not batch.ids:
        return []
    owners = await claim(session, tenant_id, list(batch.claims.values()))
    ids = list(batch.ids)
    for n, each in batch.claims.items():
        ids[n] = owners[each.key]
    new = [n for n, id_ in enumerate(batch.ids) if ids[n] == id_]
    await batches.insert(session, batch, new, tenant_id=tenant_id, created_by=created_by)
    for (queue, kind), count in batch.counts(new).items():
        notice(session, "wake", queue)
        tally(session, ENQUEUED, queue, kind, times=count)
    return ids


def _row(new: NewJob, tenant_id: UUID, created_by: UUID | None) -> Job:
    job = Job(
        tenant_id=tenant_id,
        id=new.id,
        kind=new.args.kind,
        queue=new.queue_name,
        state=JobState.AVAILABLE,
        priority=new.priority,
        args=payloads.encode_args(new.args),
        max_attempts=new.most_attempts,
        tags=list(new.tags),
        metadata_=payloads.encode_metadata(new.metadata),
        kept=new.args.kept,
        concurrency_key=payloads.concurrency_key(new.args, new.concurrency_key),
        created_by=created_by,
    )
    if new.scheduled_at is not None:
        job.scheduled_at = new.scheduled_at
        job.state = _state_until(new.scheduled_at)
    return job


async def _duplicate(session: AsyncSession, tenant_id: UUID, owner: UUID) -> Job:
    """The job that counts; deleted between two statements only by the end of its tenant."""
    scope = visible(tenant_id).execution_options(populate_existing=True)
    job = await crud.fetch(session, scope, owner, missing=JobNotFound)
    job.is_duplicate = True
    return job


async def insert(session: AsyncSession, job: Job, *, at_once: bool = False) -> Job:
    """Write a job that is put together, with what caused it; a dispatcher is woken afterwards.

    For those who hold arguments as JSON: everybody else calls `enqueue`. `at_once` is for jobs that
    may start now whatever else runs: where nothing waits they need no dispatcher.
    """
    job.request_id, job.traceparent = current_request_id(), current_traceparent()
    await crud.insert(session, job)
    tally(session, ENQUEUED, job.queue, job.kind)
    if at_once:
        ticket = Ticket(tenant_id=job.tenant_id, job_id=job.id, attempt=0, kind=job.kind)
        notice(session, "offer", job.queue, about=ticket.offer())
    else:
        notice(session, "wake", job.queue)
    return job


def _state_until(scheduled_at: datetime) -> Any:  # noqa: ANN401 - a SQL expression
    """`scheduled` where that lies ahead by PostgreSQL's clock."""
    is_ahead = literal(scheduled_at) > func.clock_timestamp()
    return case((is_ahead, JobState.SCHEDULED.value), else_=JobState.AVAILABLE.value)


def visible(tenant_id: UUID) -> Select[Job]:
    return select(Job).where(Job.tenant_id == tenant_id)


async def get_job(session: AsyncSession, tenant_id: UUID, id: UUID) -> Job:
    return await crud.fetch(session, visible(tenant_id), id, missing=JobNotFound)


async def find_jobs(session: AsyncSession, tenant_id: UUID, ids: Collection[UUID]) -> list[Job]:
    """Those of the jobs that there are, in no order."""
    return list(await session.scalars(visible(tenant_id).where(Job.id.in_(ids))))


NEWEST_FIRST: Final = Sort((Job.id,), descending=True)
"""Ids grow with time, and the primary key has them in order; `created_at` has no index."""


async def list_jobs(
    session: AsyncSession, tenant_id: UUID, filter: JobFilter, page: PageRequest
) -> Page[Job]:
    """The tenant's jobs, newest first."""
    bound_to = {"tenant": str(tenant_id), **filter.model_dump(mode="json")}
    scope = filter(visible(tenant_id))
    return await crud.paginate(session, scope, page, sort=NEWEST_FIRST, bound_to=bound_to)


async def _locked(session: AsyncSession, tenant_id: UUID, id: UUID) -> Job:
    """The row as it is now: what the session read before it had the lock may be out of date."""
    scope = visible(tenant_id).with_for_update().execution_options(populate_existing=True)
    return await crud.fetch(session, scope, id, missing=JobNotFound)


async def cancel(session: AsyncSession, tenant_id: UUID, id: UUID) -> Job:
    """Cancel a job: at once while it waits; a running one is asked to stop and stops within 2 s.

    Idempotent on a cancelled job. Raises `JobAlreadyFinished` for a completed or discarded one.
    """
    job = await _locked(session, tenant_id, id)
    is_asked = job.state is JobState.RUNNING and job.cancel_requested_at is not None
    if job.state is JobState.CANCELLED or is_asked:
        return job
    if job.state in FINAL_STATES:
        raise JobAlreadyFinished(f"Job {id} is {job.state} and cannot be cancelled.")
    job.cancel_requested_at = func.clock_timestamp()
    if job.state is JobState.RUNNING:
        notice(session, "cancel", str(id))
    else:
        job.state = JobState.CANCELLED
        job.finished_at = func.clock_timestamp()
    return await _changed(session, job)


async def retry(session: AsyncSession, tenant_id: UUID, id: UUID) -> Job:
    """Make a discarded, cancelled or waiting job run now; a spent one gets one more attempt.

    One that may start already is left as it is, in its place of the queue. Raises
    `JobNotRetryable` for one that runs or is completed.
    """
    job = await _locked(session, tenant_id, id)
    if job.state not in RETRYABLE_BY_HAND:
        raise JobNotRetryable(f"Job {id} is {job.state} and cannot be tried again.")
    if job.state is JobState.AVAILABLE:
        return job
    job.state = JobState.AVAILABLE
    job.scheduled_at = func.clock_timestamp()
    job.finished_at = None
    job.cancel_requested_at = None
    job.crashes = 0
    job.max_attempts = max(job.max_attempts, job.attempt + 1)
    notice(session, "wake", job.queue)
    return await _changed(session, job)


async def _changed(session: AsyncSession, job: Job) -> Job:
    job.revision += 1
    await session.flush()
    await session.refresh(job)
    return job
