"""The settings of jobs and of those who bring them to workers.

A part of `jangada.config`, in a file of its own to keep both of a length to read.
"""

from datetime import timedelta
from typing import Final

from pydantic import Field, ValidationInfo, field_validator

from jangada.environment import Duration, Retention, Section

BEATS: Final = 3
"""Fewer lost beats than these do not make a worker dead."""


class JobsSettings(Section):
    """How soon waiting jobs start, dead workers are noticed, and finished jobs forgotten."""

    beat_interval: Duration = Field(
        timedelta(seconds=3), description="How often a worker says that it lives."
    )
    worker_timeout: Duration = Field(
        timedelta(seconds=10),
        description="A worker silent for so long counts as dead and its jobs start elsewhere. At "
        "least three beats.",
    )
    sweep_interval: Duration = Field(
        timedelta(seconds=1), description="How often dead workers are looked for."
    )
    message_lease: Duration = Field(
        timedelta(seconds=10), description="How long a claimed message may wait for its grant."
    )
    idle_poll: Duration = Field(
        timedelta(milliseconds=250),
        description="How often an idle dispatcher looks for due jobs without being woken.",
    )
    min_window: int = Field(
        16,
        ge=1,
        description="Messages kept ready per queue, at least; live slots if they are more.",
    )
    window_ahead: Duration = Field(
        timedelta(milliseconds=50),
        description="Messages kept ready per queue beyond that: as many as were taken lately in "
        "this time, up to four times the slots. More is less work for the dispatcher, and another "
        "tenant's job waits longer.",
    )
    completed_retention: Retention = Field(
        timedelta(days=7),
        description="How long completed jobs are kept after their end; 0 keeps them for ever.",
    )
    cancelled_retention: Retention = Field(
        timedelta(days=7),
        description="How long cancelled jobs are kept after their end; 0 keeps them for ever.",
    )
    discarded_retention: Retention = Field(
        timedelta(days=90),
        description="How long discarded jobs are kept for somebody to redrive them; 0 keeps them "
        "for ever.",
    )
    max_schedules: int = Field(
        100, ge=0, description="How many schedules a tenant may have; 0 lets users make none."
    )
    misfire_grace: Duration = Field(
        timedelta(minutes=1),
        description="How late a schedule may fire and still be in time. What is later was missed: "
        "it is skipped or made up for, as the schedule says. Raise it where dispatchers may be "
        "away for longer and every fire counts.",
    )

    @field_validator("worker_timeout")
    @classmethod
    def _three_beats(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        if value < BEATS * info.data.get("beat_interval", timedelta(0)):
            raise ValueError(f"must be at least {BEATS} times JANGADA_JOBS__BEAT_INTERVAL")
        return value
