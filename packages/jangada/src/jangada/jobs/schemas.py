"""The base of all job arguments, and the filter of job lists."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select

from jangada.crud import FilterText
from jangada.jobs.limits import Concurrency, RateLimit
from jangada.jobs.models import Job, JobState


class JobArgs(BaseModel):
    """Arguments of one kind of job: subclass it and give it a `kind`.

    They are stored as JSON (≤ 64 KiB) and may be read by an older or newer release, so new fields
    need defaults; fields that this release does not know are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: ClassVar[str]
    queue: ClassVar[str] = "default"
    max_attempts: ClassVar[int] = 20
    concurrency: ClassVar[Concurrency | None] = None
    """How many run at once, over all workers; no limit by default."""
    rate_limit: ClassVar[RateLimit | None] = None
    """How many start in a while, over all workers; no limit by default."""
    is_schedulable: ClassVar[bool] = False
    """Whether users may schedule this kind in their tenant, with arguments of their own."""


class JobFilter(BaseModel):
    """Which jobs a list shows."""

    state: JobState | None = None
    kind: FilterText | None = None
    queue: FilterText | None = None

    def __call__(self, scope: Select[Job]) -> Select[Job]:
        if self.state is not None:
            scope = scope.where(Job.state == self.state)
        if self.kind is not None:
            scope = scope.where(Job.kind == self.kind)
        if self.queue is not None:
            scope = scope.where(Job.queue == self.queue)
        return scope
