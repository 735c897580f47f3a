"""The settings of workers: what they serve, how much of it at once, and how many there are.

A part of `jangada.config`; a file of its own keeps both of a length to read.
"""

from datetime import timedelta
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from jangada.environment import Duration, Section, comma_separated


class WorkerSettings(Section):
    """What one worker serves, and how much of it at once."""

    queues: Annotated[list[str], NoDecode, BeforeValidator(comma_separated)] = Field(
        default_factory=lambda: ["default", "imports"],
        description="Queues (comma separated) that a worker serves.",
    )
    pod_uid: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        description="The pod's UID (`metadata.uid`, by the downward API), under which an operator "
        "drains it. Default: one made up at each start.",
    )
    processes: int = Field(1, ge=1, le=64, description="Worker processes under one parent.")
    min_processes: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Where it is set, there are only as many processes as let jobs start in time, "
        "from this number up to `PROCESSES`. For a single machine: in a cluster an operator "
        "scales pods.",
    )
    start_within: Duration = Field(
        timedelta(seconds=5),
        description="With `MIN_PROCESSES`: a job starts so soon after it could.",
    )
    scale_down_after: Duration = Field(
        timedelta(minutes=1),
        description="With `MIN_PROCESSES`: processes that arrivals haven't needed for so long are "
        "given up.",
    )
    slots: int = Field(4, ge=1, le=1000, description="Jobs that one process runs at once.")
    drain_timeout: Duration = Field(
        timedelta(minutes=1),
        description="How long running jobs may go on after SIGTERM before they are handed back. "
        "Keep it below the pod's terminationGracePeriodSeconds.",
    )
    management_host: str = Field(
        "127.0.0.1", description="Address of the worker's health and metrics."
    )
    management_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of the worker's health and metrics; 0 takes a free one.",
    )

    @model_validator(mode="after")
    def _bounds_agree(self) -> Self:
        if self.min_processes is not None and self.min_processes > self.processes:
            raise ValueError("MIN_PROCESSES must not be above PROCESSES")
        return self
