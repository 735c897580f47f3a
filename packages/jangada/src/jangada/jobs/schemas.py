"""The base of all job arguments, what else a new job has, and the filter of job lists."""

from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select, any_, literal

from jangada.crud import FilterMoment, FilterText
from jangada.jobs.limits import Concurrency, RateLimit
from jangada.jobs.models import UNFINISHED_STATES, Job, JobState

DEFAULT_PRIORITY: Final = 2


@dataclass(frozen=True, slots=True)
class Unique:
    """While a job like it counts, no second one is enqueued in the tenant.

    `by_args`: all arguments alike, only the named ones, or none (False: the kind alone).
    `by_queue`: the queue, too. `states` are those in which a job counts: by default until it has
    failed for good or was cancelled, and `completed` for as long as its row is there. With a
    `period` it counts for so long after it was enqueued, and no longer.
    """

    by_args: bool | Collection[str] = True
    by_queue: bool = False
    period: timedelta | None = None
    states: frozenset[JobState] = UNFINISHED_STATES | {JobState.COMPLETED}

    def __post_init__(self) -> None:
        if isinstance(self.by_args, str):
            raise TypeError("by_args names arguments: write (name,) for a single one")
        if self.period is not None and self.period <= timedelta(0):
            raise ValueError("a unique job's period must be longer than nothing")
        if not {JobState.SCHEDULED, JobState.AVAILABLE} <= self.states:
            raise ValueError("a new job is scheduled or available: both states must count")


class JobArgs(BaseModel):
    """Arguments of one kind of job: subclass it and give it a `kind`.

    They are stored as JSON (≤ 64 KiB) and may be read by an older or newer release, so new fields
    need defaults; fields that this release does not know are ignored.

    A job that is `kept` is not deleted by retention, because another row is about it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: ClassVar[str]
    queue: ClassVar[str] = "default"
    max_attempts: ClassVar[int] = 20
    unique: ClassVar[Unique | None] = None
    kept: ClassVar[bool] = False
    concurrency: ClassVar[Concurrency | None] = None
    """How many run at once, over all workers; no limit by default."""
    rate_limit: ClassVar[RateLimit | None] = None
    """How many start in a while, over all workers; no limit by default."""
    is_schedulable: ClassVar[bool] = False
    """Whether users may schedule this kind in their tenant, with arguments of their own."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is to be enqueued; what is None is as its kind says.

    `priority` is 1 (first) to 4, within a tenant; `scheduled_at` is aware. `tags` and `metadata`
    are for people who look for the job later: at most 20 tags of 100 characters, 16 KiB of JSON.
    """

    args: JobArgs
    _: KW_ONLY
    id: UUID | None = None
    queue: str | None = None
    scheduled_at: datetime | None = None
    max_attempts: int | None = None
    priority: int = DEFAULT_PRIORITY
    tags: Collection[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    unique: Unique | None = None
    concurrency_key: str | None = None

    @property
    def queue_name(self) -> str:
        return self.args.queue if self.queue is None else self.queue

    @property
    def most_attempts(self) -> int:
        return self.args.max_attempts if self.max_attempts is None else self.max_attempts

    @property
    def unique_by(self) -> Unique | None:
        return self.unique or self.args.unique


class JobFilter(BaseModel):
    """Which jobs a list shows, or a redrive takes."""

    state: JobState | None = None
    kind: FilterText | None = None
    queue: FilterText | None = None
    tag: FilterText | None = None
    error_code: FilterText | None = None
    since: FilterMoment | None = None
    until: FilterMoment | None = None

    def __call__(self, scope: Select[Job]) -> Select[Job]:
        if self.state is not None:
            # Written out: a plan that is made for any state could use no partial index.
            state = literal(self.state, Job.state.type, literal_execute=True)
            scope = scope.where(Job.state == state)
        if self.kind is not None:
            scope = scope.where(Job.kind == self.kind)
        if self.queue is not None:
            scope = scope.where(Job.queue == self.queue)
        if self.error_code is not None:
            scope = scope.where(Job.errors[-1]["code"].astext == self.error_code)
        if self.tag is not None:
            scope = scope.where(literal(self.tag) == any_(Job.tags))
        if self.since is not None:
            scope = scope.where(Job.finished_at >= self.since)
        if self.until is not None:
            scope = scope.where(Job.finished_at < self.until)
        return scope
