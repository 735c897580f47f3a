"""Ends a process whose job holds the interpreter, or the event loop, beyond its timeout.

Nobody in the process can: what would end the attempt needs a turn of the loop. The parent beats for
it, so its jobs would never be handed on. Its neighbours start anew elsewhere; the one that did it
is poison if it does so when it runs alone.

A process that was declared dead, and is too busy to hear it, is ended as well: what it runs was
handed on, and it would never start anything else.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

import psycopg

from jangada.errors import Unavailable
from jangada.jobs.delivery import workers
from jangada.jobs.delivery.connection import DirectConnection
from jangada.telemetry import get_logger
from jangada_queue.processes import is_stopped
from jangada_worker.parent.children import Child
from jangada_worker.patience import STUCK

log = get_logger(__name__)

LOOK_EVERY: Final = 1.0


class Watchdog:
    """Looks at the children that say nothing, and asks PostgreSQL what they run and since when."""

    def __init__(
        self, connection: DirectConnection, children: Callable[[], Iterable[Child]]
    ) -> None:
        self._connection = connection
        self._children = children

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for child in tuple(self._children()):
                # One that was stopped (SIGSTOP) is silent, too; it isn't beaten for.
                is_mute = child.silent_seconds >= STUCK.total_seconds()
                if not is_mute or child.worker is None or is_stopped(child.pid):
                    continue
                if child.deaf_seconds >= STUCK.total_seconds():
                    self._end_deaf(child)
                else:
                    await self._look_at(child, child.worker)

    @staticmethod
    def _end_deaf(child: Child) -> None:
        """PostgreSQL knows nothing of what it runs any more, and it doesn't hear that."""
        log.error(
            "a process that was declared dead doesn't hear it, its loop doesn't turn: it is killed",
            pid=child.pid,
            seconds=round(child.silent_seconds, 1),
        )
        child.kill()

    async def _look_at(self, child: Child, worker: UUID) -> None:
        try:
            running = await self._connection.run(lambda found: workers.find_running(found, worker))
        except (Unavailable, psycopg.Error) as error:
            log.debug("no look at a silent process", pid=child.pid, error=error)
            return
        overdue = [job for job in running if job.seconds >= _longest(child, job.kind)]
        if overdue:
            log.error(
                "a process kept a job beyond its timeout without a turn of its loop: it is killed",
                pid=child.pid,
                jobs=[f"{job.kind} {job.job_id}" for job in overdue],
                seconds=round(child.silent_seconds, 1),
            )
            child.kill()


def _longest(child: Child, kind: str) -> float:
    return child.timeouts.get(kind, math.inf) + STUCK.total_seconds()
