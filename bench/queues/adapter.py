"""What an adapter offers to `stage`, and what it is told. Only the standard library."""

import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

VALKEY, POSTGRES = "QUEUES_VALKEY", "QUEUES_POSTGRES"
PROCESSES = 2
SLOTS = 100
"""Jobs that one process of an async contestant runs at once: taskiq's default."""

NAP, HOLD = 0.1, 600.0
"""How long the kinds `nap` and `hold` sleep, in seconds."""


@dataclass(frozen=True, slots=True)
class Program:
    """A process that a contestant needs. One that runs no jobs (a dispatcher) is no worker."""

    command: list[str]
    is_worker: bool = True


@dataclass(frozen=True, slots=True)
class Producer:
    """How jobs get in. `enqueue` returns the monotonic time at which the job was in for certain."""

    enqueue: Callable[[str, int], Awaitable[float]]
    enqueue_many: Callable[[str, range], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A contestant as `stage` sees it. `prepare` leaves an empty queue that is ready for use."""

    programs: Callable[[], list[Program]]
    producer: Callable[[], AbstractAsyncContextManager[Producer]]
    prepare: Callable[[], None] = lambda: None


def program(name: str) -> str:
    """A program of the environment that this runs in."""
    return str(Path(sys.executable).with_name(name))


def valkey_url() -> str:
    return os.environ[VALKEY]


def postgres_url() -> str:
    return os.environ[POSTGRES]
