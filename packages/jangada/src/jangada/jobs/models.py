"""The tables of jobs and workers, the states, and the predicates over them."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, ForeignKey, SmallInteger, func
from sqlalchemy.orm import Mapped, mapped_column

import jangada.tenants.models  # noqa: F401 - the tables that these refer to
from jangada.db import Base, TenantEntity


class JobState(StrEnum):
    """Where a job stands. River's and Oban's words; `discarded` is the dead-letter state."""

    SCHEDULED = "scheduled"
    AVAILABLE = "available"
    RUNNING = "running"
    RETRYABLE = "retryable"
    COMPLETED = "completed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"


FINAL_STATES: Final = (JobState.COMPLETED, JobState.DISCARDED, JobState.CANCELLED)
WAITING_STATES: Final = (JobState.SCHEDULED, JobState.AVAILABLE, JobState.RETRYABLE)


UNFINISHED_STATES: Final = frozenset((*WAITING_STATES, JobState.RUNNING))


class Job(TenantEntity):
    """One piece of work. `attempt` counts grants and is the fence; `revision` counts changes.

    One that is `kept` is no matter of retention: another row is about it.
    """

    __tablename__ = "jobs"

    is_duplicate = False
    """Whether `enqueue` found this job instead of making one. No column."""

    kind: Mapped[str]
    queue: Mapped[str]
    state: Mapped[JobState]
    priority: Mapped[int] = mapped_column(SmallInteger(), default=2)
    args: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]
    errors: Mapped[list[Any]] = mapped_column(default=list)
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    crashes: Mapped[int] = mapped_column(default=0)
    revision: Mapped[int] = mapped_column(BigInteger(), default=1)
    worker_id: Mapped[UUID | None]
    progress_done: Mapped[int | None] = mapped_column(BigInteger())
    progress_total: Mapped[int | None] = mapped_column(BigInteger())
    unique_key: Mapped[bytes | None]
    concurrency_key: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(default=list)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    kept: Mapped[bool] = mapped_column(default=False)
    created_by: Mapped[UUID | None]
    request_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    scheduled_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]


class JobUniqueKey(Base):
    """Which job was enqueued last under a unique key; the job itself may be gone."""

    __tablename__ = "job_unique_keys"

    tenant_id: Mapped[UUID] = mapped_column(
        ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[bytes] = mapped_column(primary_key=True)
    job_id: Mapped[UUID]
    taken_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Worker(Base):
    """A worker process that lives as long as `beat_at` is young, by PostgreSQL's clock."""

    __tablename__ = "workers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    pod_uid: Mapped[str | None]
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    queues: Mapped[list[str]]
    slots: Mapped[int]
    started_at: Mapped[datetime]
    beat_at: Mapped[datetime]


def is_final() -> ColumnElement[bool]:
    return Job.state.in_(FINAL_STATES)


def is_waiting() -> ColumnElement[bool]:
    return Job.state.in_(WAITING_STATES)
