"""Jobs over HTTP: lists, one job, its events as they happen, cancel, retry and redrive.

The stream of events holds no connection to PostgreSQL: `job_streams` looks for all of them. Every
event is a whole snapshot whose id is the job's revision, so a client that resumes has missed
nothing that matters: it gets the newest one. The stream ends with the job, with the session, or
with us.

No route asks Valkey for progress while a transaction is open: where it hangs, answers come late,
but neither connections nor locks are held.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from jangada.crud import FilterMoment, FilterText
from jangada.errors import Unauthenticated, Unavailable
from jangada.jobs import dead_letters, service
from jangada.jobs.dead_letters import REDRIVEN_AT_ONCE
from jangada.jobs.delivery.progress import latest_progress
from jangada.jobs.errors import JobAlreadyFinished, JobNotFound, JobNotRetryable
from jangada.jobs.models import FINAL_STATES, Job, JobState
from jangada.jobs.schemas import JobFilter
from jangada.runtime import Runtime
from jangada_api.deps import AccountsDep, PrincipalDep, RuntimeDep
from jangada_api.job_streams import JobReader, JobStreams, StreamLimitReached, TooManyStreams
from jangada_api.listing import Listing, PageDep
from jangada_api.openapi import Fault, documented
from jangada_api.routing import api_router
from jangada_queue.signals import Progress

router = api_router(prefix="/v1/jobs", tags=["jobs"])

DO_NOT_RECONNECT: Final = timedelta(hours=24)

EXAMPLE: Final[JsonDict] = {
    "id": "0198f3f0-7c1e-7a52-9d52-7d5d7bcbf4a1",
    "kind": "contacts.import",
    "queue": "imports",
    "state": "running",
    "priority": 2,
    "attempt": 1,
    "max_attempts": 20,
    "tags": ["monday"],
    "progress": {"done": 12000, "total": 50000},
    "errors": [],
    "result": None,
    "request_id": "0198f3f0-7b90-7d11-8c53-2f4b8a1f0e6d",
    "created_at": "2026-03-01T12:00:00Z",
    "scheduled_at": "2026-03-01T12:00:00Z",
    "started_at": "2026-03-01T12:00:01Z",
    "finished_at": None,
    "cancel_requested_at": None,
}


class JobProgress(BaseModel):
    """How far a job is."""

    done: int
    total: int | None = Field(description="Null while it is not known.")


class JobFailure(BaseModel):
    """Why an attempt failed."""

    attempt: int
    at: datetime
    code: str
    detail: str
    errors: list[Fault] = []


class JobOut(BaseModel):
    """A job."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE]})

    id: UUID
    kind: str
    queue: str
    state: JobState
    priority: int = Field(description="1 (first) to 4, within a tenant.")
    attempt: int = Field(description="How often it was started.")
    max_attempts: int
    tags: list[str]
    progress: JobProgress | None = Field(description="Null until the job has reported any.")
    errors: list[JobFailure] = Field(description="Why attempts failed; the last 20.")
    result: dict[str, Any] | None
    request_id: str | None = Field(description="The request that caused it.")
    created_at: datetime
    scheduled_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None


OfKind = Annotated[FilterText | None, Field(description="Only jobs of this kind.")]
OfQueue = Annotated[FilterText | None, Field(description="Only jobs of this queue.")]
Tagged = Annotated[FilterText | None, Field(description="Only jobs with this tag.")]
FailedWith = Annotated[
    FilterText | None, Field(description="Only jobs whose last error has this code.")
]
EndedSince = Annotated[
    FilterMoment | None, Field(description="Only jobs that ended then or later.")
]
EndedBefore = Annotated[FilterMoment | None, Field(description="Only jobs that ended before then.")]


class JobQuery(JobFilter):
    """Which jobs to list."""

    state: JobState | None = Field(None, description="Only jobs in this state.")
    kind: OfKind = None
    queue: OfQueue = None
    tag: Tagged = None
    error_code: FailedWith = None
    since: EndedSince = None
    until: EndedBefore = None


class Redrive(BaseModel):
    """Which discarded jobs to run again: all conditions hold, and none means all jobs."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"error_code": "service.unavailable"}]}
    )

    kind: OfKind = None
    queue: OfQueue = None
    tag: Tagged = None
    error_code: FailedWith = None
    since: EndedSince = None
    until: EndedBefore = None
    limit: int = Field(
        REDRIVEN_AT_ONCE, ge=1, le=REDRIVEN_AT_ONCE, description="At most so many in this call."
    )


class Redriven(BaseModel):
    """What a call has redriven."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"redriven": 1000, "has_more": True, "until": "2026-03-01T12:00:00Z"}]
        }
    )

    redriven: int = Field(description="How many jobs are available again.")
    has_more: bool = Field(description="Whether some are left: call again with this `until`.")
    until: datetime = Field(
        description="Jobs that ended before then were meant. With it, the next call leaves alone "
        "what was redriven and has failed again."
    )


def read_job(job: Job, progress: Progress | None) -> JobOut:
    """The job as a client reads it."""
    known = None if progress is None else JobProgress(done=progress.done, total=progress.total)
    values = {name: getattr(job, name) for name in JobOut.model_fields if name != "progress"}
    return JobOut(progress=known, **values)


async def read_job_now(runtime: Runtime, job: Job) -> JobOut:
    """As `read_job`, with the progress that a running job has reported. Asks Valkey."""
    return read_job(job, (await latest_progress(runtime.queue, [job])).get(job.id))


@router.get("", responses=documented())
async def list_jobs(
    *,
    principal: PrincipalDep,
    runtime: RuntimeDep,
    page: PageDep,
    filter: Annotated[JobQuery, Query()],
) -> Listing[JobOut]:
    """List jobs, newest first."""
    async with runtime.database.read(principal.tenant_id) as session:
        found = await service.list_jobs(session, principal.tenant_id, filter, page)
    progress = await latest_progress(runtime.queue, found.data)
    return Listing[JobOut].of(found, lambda job: read_job(job, progress.get(job.id)))


@router.get("/{job_id:uuid}", responses=documented(JobNotFound))
async def get_job(principal: PrincipalDep, runtime: RuntimeDep, job_id: UUID) -> JobOut:
    """Read one job: state, progress, result and errors."""
    async with runtime.database.read(principal.tenant_id) as session:
        job = await service.get_job(session, principal.tenant_id, job_id)
    return await read_job_now(runtime, job)


@router.post("/{job_id:uuid}:cancel", responses=documented(JobNotFound, JobAlreadyFinished))
async def cancel_job(principal: PrincipalDep, runtime: RuntimeDep, job_id: UUID) -> JobOut:
    """Cancel a job: at once while it waits; a running one stops within two seconds.

    Cancelling a cancelled job changes nothing.
    """
    async with runtime.database.transaction(principal.tenant_id) as session:
        job = await service.cancel(session, principal.tenant_id, job_id)
    return await read_job_now(runtime, job)


@router.post("/{job_id:uuid}:retry", responses=documented(JobNotFound, JobNotRetryable))
async def retry_job(principal: PrincipalDep, runtime: RuntimeDep, job_id: UUID) -> JobOut:
    """Run a discarded, cancelled or waiting job now."""
    async with runtime.database.transaction(principal.tenant_id) as session:
        job = await service.retry(session, principal.tenant_id, job_id)
    return await read_job_now(runtime, job)


@router.post(":redrive", responses=documented())
async def redrive_jobs(principal: PrincipalDep, runtime: RuntimeDep, wanted: Redrive) -> Redriven:
    """Run discarded jobs again, a bounded number a call.

    Each gets at least one more attempt. Repeating a call does no harm: what was redriven is not
    discarded any more.
    """
    chosen = JobFilter(**wanted.model_dump(exclude={"limit"}))
    async with runtime.database.transaction(principal.tenant_id) as session:
        done = await dead_letters.redrive(
            session, chosen, tenant_id=principal.tenant_id, limit=wanted.limit
        )
    return Redriven(redriven=done.jobs, has_more=done.has_more, until=done.until)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job at one moment."""

    revision: int
    job: JobOut

    def as_event(self) -> ServerSentEvent:
        # A browser's EventSource reconnects when a stream ends; after the end there is no news.
        pause = int(DO_NOT_RECONNECT.total_seconds() * 1000) if self.is_last else None
        return ServerSentEvent(data=self.job, event="job", id=str(self.revision), retry=pause)

    @property
    def is_last(self) -> bool:
        return self.job.state in FINAL_STATES


async def get_first_snapshot(
    principal: PrincipalDep, runtime: RuntimeDep, job_id: UUID
) -> Snapshot:
    """Raises `JobNotFound` while the answer can still be a 404."""
    async with runtime.database.read(principal.tenant_id) as session:
        job = await service.get_job(session, principal.tenant_id, job_id)
    return Snapshot(job.revision, await read_job_now(runtime, job))


def get_streams(request: Request) -> JobStreams:
    streams: JobStreams = request.app.state.streams
    return streams


StreamsDep = Annotated[JobStreams, Depends(get_streams)]
FirstDep = Annotated[Snapshot, Depends(get_first_snapshot)]


async def hold_stream(streams: StreamsDep, principal: PrincipalDep) -> AsyncIterator[None]:
    """Count the stream for as long as it is open."""
    with streams.hold(principal):
        yield


async def follow_job(
    streams: StreamsDep, principal: PrincipalDep, first: FirstDep
) -> AsyncIterator[JobReader]:
    """What looks at the job for as long as the stream is open."""
    with streams.following(principal.tenant_id, first.job.id) as reader:
        yield reader


async def know_last_event_id(
    last_event_id: Annotated[
        str | None, Header(description="The id of the last event that was seen.")
    ] = None,
) -> None:
    """Documents what clients send when they resume; they get the newest snapshot whatever it is."""
    del last_event_id


STREAM_EXAMPLE: Final = 'event: job\ndata: {"id": "0198f3f0-…", "state": "running", …}\nid: 7\n\n'


@router.get(
    "/{job_id:uuid}/events",
    response_class=EventSourceResponse,
    dependencies=[Depends(hold_stream), Depends(know_last_event_id)],
    responses={
        200: {"content": {"text/event-stream": {"example": STREAM_EXAMPLE}}},
        **documented(JobNotFound, StreamLimitReached, TooManyStreams),
    },
)
async def stream_job(
    *,
    job_id: UUID,
    principal: PrincipalDep,
    accounts: AccountsDep,
    streams: StreamsDep,
    first: FirstDep,
    reader: Annotated[JobReader, Depends(follow_job)],
) -> AsyncIterator[ServerSentEvent]:
    """Follow a job: a snapshot now and at each change, as server-sent events, until it ends.

    An event's id is the job's revision. A client that resumes (`Last-Event-ID`) gets the newest
    snapshot first. The stream also ends when the session does.
    """
    shown, latest = None, first
    while True:
        if latest != shown:
            yield latest.as_event()
            shown = latest
        if latest.is_last or (sight := await reader.next(job_id)) is None:
            return
        try:
            async with streams.turns:
                await accounts.revocations.ensure_live(principal)
        except Unauthenticated:
            return
        except Unavailable:
            continue  # PostgreSQL is away for a moment: the stream waits for it
        latest = Snapshot(sight.job.revision, read_job(sight.job, sight.progress))
