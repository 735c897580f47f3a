"""Inputs of schedules, and the filter of their lists."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Select

from jangada.crud import NO_DEFAULT, FilterText, without_nul
from jangada.schedules.models import Misfire, Schedule, is_active
from jangada_queue.cron import LONGEST

type Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(without_nul),
]
type KindName = Annotated[
    str, StringConstraints(min_length=1, max_length=200), AfterValidator(without_nul)
]
type CronText = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]
type ZoneName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
type Priority = Annotated[int, Field(ge=1, le=4)]


class ScheduleCreate(BaseModel):
    """A new schedule."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="Unique among your schedules.")
    cron: CronText = Field(
        description="Five fields, or six with seconds in front, or `@hourly`, `@daily`, `@weekly`, "
        "`@monthly`, `@yearly`."
    )
    timezone: ZoneName = Field("UTC", description="Of the IANA database: `America/Sao_Paulo`.")
    kind: KindName = Field(description="The kind of job, one that may be scheduled.")
    args: dict[str, Any] = Field({}, description="The job's arguments.")
    priority: Priority = Field(2, description="1 (first) to 4, within a tenant.")
    concurrency_key: str | None = Field(
        None, description="Jobs of the same key may be limited together."
    )
    misfire: Misfire = Field(
        Misfire.ONCE, description="Whether fires that were missed are made up for, by one job."
    )
    is_paused: bool = Field(default=False, description="Whether it begins paused.")


class SchedulePatch(BaseModel):
    """What is to change in a schedule."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Name, NO_DEFAULT] = ""
    cron: Annotated[CronText, NO_DEFAULT] = ""
    timezone: Annotated[ZoneName, NO_DEFAULT] = ""
    args: Annotated[dict[str, Any], NO_DEFAULT] = {}
    priority: Annotated[Priority, NO_DEFAULT] = 2
    concurrency_key: str | None = None
    misfire: Annotated[Misfire, NO_DEFAULT] = Misfire.ONCE


class ScheduleFilter(BaseModel):
    """Which schedules a list shows."""

    kind: FilterText | None = None
    is_paused: bool | None = None

    def __call__(self, scope: Select[Schedule]) -> Select[Schedule]:
        if self.kind is not None:
            scope = scope.where(Schedule.kind == self.kind)
        if self.is_paused is not None:
            scope = scope.where(~is_active() if self.is_paused else is_active())
        return scope
