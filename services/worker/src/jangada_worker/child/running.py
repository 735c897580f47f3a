"""The attempts that this process owns, from the grant to the last word about them."""

import time
from collections.abc import Collection, Iterator
from itertools import takewhile
from typing import Final
from uuid import UUID

from jangada_queue.workers import RunningWork
from jangada_worker.executor import Execution, Interruption

YOUNG: Final = 0.02
"""For how long a start is young, in seconds."""


class Running:
    """What runs here, and the one place to interrupt it."""

    def __init__(self) -> None:
        self._executions: dict[UUID, Execution] = {}

    def __len__(self) -> int:
        return len(self._executions)

    def __iter__(self) -> Iterator[Execution]:
        return iter(tuple(self._executions.values()))

    @property
    def job_ids(self) -> Collection[UUID]:
        return self._executions.keys()

    def add(self, execution: Execution) -> None:
        self._executions[execution.job.job_id] = execution

    def remove(self, execution: Execution) -> None:
        if self._executions.get(execution.job.job_id) is execution:
            del self._executions[execution.job.job_id]

    def interrupt(self, job_id: UUID, why: Interruption) -> None:
        """Interrupt a job if it runs here."""
        execution = self._executions.get(job_id)
        if execution is not None:
            execution.interrupt(why)

    def interrupt_all(self, why: Interruption) -> None:
        for execution in self:
            execution.interrupt(why)

    def young(self) -> int:
        """How many began just now: those may be about to end, the others may run for hours."""
        since = time.monotonic() - YOUNG
        newest_first = reversed(self._executions.values())
        return sum(1 for _ in takewhile(lambda each: each.started >= since, newest_first))

    def report(self) -> list[RunningWork]:
        return [
            RunningWork(execution.job.key, execution.job.kind, execution.seconds)
            for execution in self
        ]
