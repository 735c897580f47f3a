"""Schedules over HTTP: lists, one schedule, and whatever a user does with it."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Body, Query, Response
from fastapi.openapi.models import Example
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from jangada.crud import FilterText, InvalidCursor
from jangada.jobs.errors import InvalidConcurrencyKey, JobNotStorable, JobTooLarge
from jangada.schedules import service
from jangada.schedules.errors import (
    InvalidCron,
    KindNotSchedulable,
    ScheduleExists,
    ScheduleNotFound,
    TooManySchedules,
    UnknownTimezone,
)
from jangada.schedules.models import Misfire
from jangada.schedules.schemas import ScheduleCreate, ScheduleFilter, SchedulePatch
from jangada_api.deps import PrincipalDep, ReadSessionDep, RuntimeDep, SessionDep
from jangada_api.jobs import JobOut, read_job
from jangada_api.listing import Listing, PageDep
from jangada_api.openapi import documented
from jangada_api.routing import api_router

router = api_router(prefix="/v1/schedules", tags=["schedules"])

EXAMPLE: Final[JsonDict] = {
    "id": "0198f3f0-7c1e-7a52-9d52-7d5d7bcbf4a1",
    "name": "every working day at eight",
    "cron": "0 8 * * 1-5",
    "timezone": "America/Sao_Paulo",
    "kind": "ping",
    "args": {"message": "good morning"},
    "queue": "default",
    "priority": 2,
    "concurrency_key": None,
    "misfire": "once",
    "is_paused": False,
    "paused_at": None,
    "next_at": "2026-03-02T11:00:00Z",
    "last_fired_at": "2026-02-27T11:00:00Z",
    "last_job_id": "0198f3f0-7b90-7d11-8c53-2f4b8a1f0e6d",
    "created_at": "2026-03-01T12:00:00Z",
    "updated_at": "2026-03-01T12:00:00Z",
}
CREATE_EXAMPLES: Final[dict[str, Example]] = {
    "every working day": {
        "value": {
            "name": "every working day at eight",
            "cron": "0 8 * * 1-5",
            "timezone": "America/Sao_Paulo",
            "kind": "ping",
            "args": {"message": "good morning"},
        }
    }
}
PATCH_EXAMPLES: Final[dict[str, Example]] = {
    "every quarter of an hour": {"value": {"cron": "*/15 * * * *"}}
}
REFUSED: Final = (
    InvalidCron,
    UnknownTimezone,
    ScheduleExists,
    JobTooLarge,
    JobNotStorable,
    InvalidConcurrencyKey,
)


class ScheduleOut(BaseModel):
    """A schedule."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE]})

    id: UUID
    name: str
    cron: str
    timezone: str
    kind: str
    args: dict[str, Any]
    queue: str
    priority: int
    concurrency_key: str | None
    misfire: Misfire = Field(description="What becomes of fires that were missed.")
    is_paused: bool
    paused_at: datetime | None
    next_at: datetime = Field(description="The next fire; counted anew when a pause ends.")
    last_fired_at: datetime | None
    last_job_id: UUID | None = Field(description="The job that the last fire enqueued.")
    created_at: datetime
    updated_at: datetime


class ScheduleQuery(ScheduleFilter):
    """Which schedules to list."""

    kind: FilterText | None = Field(None, description="Only schedules of this kind of job.")
    is_paused: bool | None = Field(None, description="Only those that are paused, or are not.")


@router.get("", responses=documented(InvalidCursor))
async def list_schedules(
    session: ReadSessionDep,
    principal: PrincipalDep,
    page: PageDep,
    filter: Annotated[ScheduleQuery, Query()],
) -> Listing[ScheduleOut]:
    """List schedules, newest first."""
    found = await service.list_schedules(session, principal.tenant_id, filter, page)
    return Listing[ScheduleOut].of(found, ScheduleOut.model_validate)


@router.post(
    "",
    status_code=201,
    responses=documented(KindNotSchedulable, TooManySchedules, *REFUSED),
)
async def create_schedule(
    *,
    session: SessionDep,
    principal: PrincipalDep,
    runtime: RuntimeDep,
    response: Response,
    body: Annotated[ScheduleCreate, Body(openapi_examples=CREATE_EXAMPLES)],
) -> ScheduleOut:
    """Create a schedule: a job that is enqueued whenever the cron expression says so."""
    schedule = await service.create_schedule(
        session,
        principal.tenant_id,
        body,
        by=principal.user_id,
        most=runtime.settings.jobs.max_schedules,
    )
    response.headers["Location"] = f"/v1/schedules/{schedule.id}"
    return ScheduleOut.model_validate(schedule)


@router.get("/{schedule_id:uuid}", responses=documented(ScheduleNotFound))
async def get_schedule(
    session: ReadSessionDep, principal: PrincipalDep, schedule_id: UUID
) -> ScheduleOut:
    """Read one schedule."""
    found = await service.get_schedule(session, principal.tenant_id, schedule_id)
    return ScheduleOut.model_validate(found)


@router.patch("/{schedule_id:uuid}", responses=documented(ScheduleNotFound, *REFUSED))
async def update_schedule(
    session: SessionDep,
    principal: PrincipalDep,
    schedule_id: UUID,
    body: Annotated[SchedulePatch, Body(openapi_examples=PATCH_EXAMPLES)],
) -> ScheduleOut:
    """Change a schedule (JSON merge patch, arguments as a whole); a new time counts from now on."""
    changed = await service.update_schedule(session, principal.tenant_id, schedule_id, body)
    return ScheduleOut.model_validate(changed)


@router.delete("/{schedule_id:uuid}", status_code=204, responses=documented(ScheduleNotFound))
async def delete_schedule(session: SessionDep, principal: PrincipalDep, schedule_id: UUID) -> None:
    """Delete a schedule. Jobs that it has enqueued stay."""
    await service.delete_schedule(session, principal.tenant_id, schedule_id)


@router.post("/{schedule_id:uuid}:pause", responses=documented(ScheduleNotFound))
async def pause_schedule(
    session: SessionDep, principal: PrincipalDep, schedule_id: UUID
) -> ScheduleOut:
    """Keep a schedule from firing until it is resumed. Pausing a paused one changes nothing."""
    paused = await service.pause(session, principal.tenant_id, schedule_id)
    return ScheduleOut.model_validate(paused)


@router.post("/{schedule_id:uuid}:resume", responses=documented(ScheduleNotFound))
async def resume_schedule(
    session: SessionDep, principal: PrincipalDep, schedule_id: UUID
) -> ScheduleOut:
    """Let a schedule fire again, from now on: what fell into the pause is not made up for."""
    resumed = await service.resume(session, principal.tenant_id, schedule_id)
    return ScheduleOut.model_validate(resumed)


@router.post("/{schedule_id:uuid}:run", status_code=202, responses=documented(ScheduleNotFound))
async def run_schedule(
    *, session: SessionDep, principal: PrincipalDep, response: Response, schedule_id: UUID
) -> JobOut:
    """Enqueue the schedule's job now; when it fires next stays as it is."""
    job = await service.run(session, principal.tenant_id, schedule_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return read_job(job, None)
