"""The table of schedules, and the predicates over it."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, SmallInteger, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

import jangada.tenants.models  # noqa: F401 - the tables that these refer to
from jangada.db import TenantEntity


class Misfire(StrEnum):
    """What becomes of fires that were missed because nothing was there to fire them."""

    SKIP = "skip"
    ONCE = "once"


class Schedule(TenantEntity):
    """When which job is enqueued. `next_at` is the next fire; it stays as it is while paused."""

    __tablename__ = "schedules"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    name: Mapped[str]
    cron: Mapped[str]
    timezone: Mapped[str]
    kind: Mapped[str]
    args: Mapped[dict[str, Any]]
    queue: Mapped[str]
    priority: Mapped[int] = mapped_column(SmallInteger())
    max_attempts: Mapped[int]
    concurrency_key: Mapped[str | None]
    misfire: Mapped[Misfire]
    paused_at: Mapped[datetime | None]
    last_fired_at: Mapped[datetime | None]
    last_job_id: Mapped[UUID | None]
    next_at: Mapped[datetime]
    created_by: Mapped[UUID | None]

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None


def is_active() -> ColumnElement[bool]:
    return Schedule.paused_at.is_(None)
