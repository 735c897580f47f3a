"""A job that does nothing but answer: to see that jobs run."""

import os
import socket
from typing import ClassVar

from pydantic import BaseModel

from jangada.jobs.context import JobContext
from jangada.jobs.registry import handles
from jangada.jobs.schemas import JobArgs


class Ping(JobArgs):
    """Ask a worker for a sign of life."""

    kind: ClassVar[str] = "ping"
    is_schedulable: ClassVar[bool] = True
    message: str = ""


class Pong(BaseModel):
    """Who answered, and what it was told."""

    message: str
    host: str
    pid: int
    attempt: int


@handles(Ping)
async def ping(args: Ping, context: JobContext) -> Pong:
    return Pong(
        message=args.message, host=socket.gethostname(), pid=os.getpid(), attempt=context.attempt
    )
