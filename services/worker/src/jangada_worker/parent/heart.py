"""Registers, beats and buries the children in PostgreSQL, whatever they are doing themselves."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import psycopg

from jangada.db import new_id
from jangada.errors import Unavailable
from jangada.jobs.delivery import workers
from jangada.jobs.delivery.connection import Connection, DirectConnection
from jangada.telemetry import get_logger
from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueUnavailable
from jangada_queue.patience import Pauses, wait_at_most
from jangada_queue.processes import is_stopped
from jangada_queue.signals import tell
from jangada_worker.link import CancelJobs
from jangada_worker.parent.children import Child

log = get_logger(__name__)

LOOK_EVERY: Final = 0.5
"""How long after a cancel PostgreSQL is asked for it, where Valkey didn't bring it, in seconds."""


@dataclass(frozen=True, slots=True)
class Departed:
    """A worker whose process has ended; `in_order` when it had handed back what it held."""

    worker: UUID
    in_order: bool


class Heart:
    """Beats for the children that aren't stopped (SIGSTOP), and keeps trying without PostgreSQL."""

    def __init__(
        self,
        connection: DirectConnection,
        queue: QueueClient,
        *,
        interval: float,
        children: Callable[[], Iterable[Child]],
        describe: Callable[[UUID, Child], workers.NewWorker],
        failed: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._interval = interval
        self._children = children
        self._describe = describe
        self._failed = failed
        self._departed: list[Departed] = []
        self._hurried = asyncio.Event()
        self.is_absent = False

    def hurry(self) -> None:
        """Something changed: don't wait for the next beat."""
        self._hurried.set()

    def bury(self, worker: UUID, *, in_order: bool) -> None:
        """A process has ended: give its jobs free as soon as PostgreSQL can be told."""
        self._departed.append(Departed(worker, in_order))
        self.hurry()

    async def run(self) -> None:
        """Beat until cancelled."""
        pauses = Pauses(longest=min(self._interval, 2.0))
        while True:
            self._hurried.clear()
            if await self.beat():
                pauses.reset()
                await self._rest()
            else:
                await asyncio.sleep(pauses.take())

    async def _rest(self) -> None:
        """Until the next beat, or a hurry. Meanwhile what runs may be cancelled without Valkey."""
        end = time.monotonic() + self._interval
        while (left := end - time.monotonic()) > 0:
            if await wait_at_most(self._hurried.wait(), min(left, LOOK_EVERY)):
                return
            if left > LOOK_EVERY and any(child.running for child in self._children()):
                await self._look()

    async def _look(self) -> None:
        known = [child.worker for child in self._children() if child.worker is not None]
        try:
            self._cancel(
                await self._connection.run(lambda found: workers.find_cancelled(found, known))
            )
        except (Unavailable, psycopg.Error) as error:
            log.debug("no look at what is cancelled", error=error)  # the next beat says more

    def _cancel(self, jobs: frozenset[UUID]) -> None:
        if jobs:
            for child in self._children():
                child.send(CancelJobs(sorted(jobs)))

    async def beat(self) -> bool:
        """Bury, register and beat once; whether PostgreSQL took it."""
        try:
            queues = await self._connection.run(self._turn)
        except (Unavailable, psycopg.Error) as error:
            self._failed()
            if not self.is_absent:
                log.warning("PostgreSQL does not take the beat", error=error)
            self.is_absent = True
            return False
        if self.is_absent:
            log.info("PostgreSQL takes the beat again")
        self.is_absent = False
        await self._wake(queues)
        return True

    async def _turn(self, connection: Connection) -> list[str]:
        queues = await self._bury(connection)
        children = [each for each in self._children() if each.is_ready and not is_stopped(each.pid)]
        await self._register(connection, [child for child in children if child.worker is None])
        known = {child.worker: child for child in children if child.worker is not None}
        if not known:
            return queues
        answer = await workers.beat(connection, known.keys())
        self._cancel(answer.cancelled)
        dead = [child for worker, child in known.items() if worker not in answer.alive]
        if dead:
            log.warning("workers were declared dead and register anew", count=len(dead))
        await self._register(connection, dead)
        return queues

    async def _register(self, connection: Connection, children: Iterable[Child]) -> None:
        for child in children:
            worker, is_taken = new_id(), False
            try:
                await workers.register(connection, self._describe(worker, child))
                is_taken = child in self._children()
            finally:  # its process may have ended meanwhile, or the commit's answer been lost
                if is_taken:
                    child.identify(worker)
                else:
                    self.bury(worker, in_order=False)

    async def _bury(self, connection: Connection) -> list[str]:
        departed = tuple(self._departed)
        ended = [each.worker for each in departed if each.in_order]
        crashed = [each.worker for each in departed if not each.in_order]
        queues = await workers.deregister(connection, ended) if ended else []
        if crashed:
            await workers.bury(connection, crashed)
        del self._departed[: len(departed)]
        return queues

    async def _wake(self, queues: list[str]) -> None:
        if queues:
            try:
                await tell(self._queue, wake=queues)
            except QueueUnavailable as error:
                log.debug("no dispatcher was woken", error=error)
