"""Writes how attempts ended: in batches, and for as long as it takes.

While PostgreSQL is absent, or takes no writes, the attempts' results are held here; they are
written when it does again, unless their leases were lost meanwhile. Only what it would never store
is given up.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psycopg
from msgspec.structs import replace

from jangada.errors import Unavailable
from jangada.jobs.delivery.connection import DirectConnection
from jangada.jobs.delivery.finish import finish
from jangada.jobs.delivery.policy import Ending
from jangada.jobs.models import JobState
from jangada.telemetry import get_logger
from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueUnavailable
from jangada_queue.patience import Pauses, wait_at_most
from jangada_queue.signals import tell

log = get_logger(__name__)

BATCH: Final = 200

LINGER: Final = 0.003
"""How long an ending waits for others at most, in seconds. Most of a commit is its own wait."""


@dataclass(slots=True)
class _Pending:
    ending: Ending
    written: asyncio.Future[bool]


class EndingWriter:
    """One statement is under way at a time; the next takes everything that came meanwhile.

    While fewer than half of the jobs that began just now have ended, more is waited for, though not
    for long: short jobs end together. `young` says how many those are; what has ended and waits
    here still counts.
    """

    def __init__(
        self, connection: DirectConnection, queue: QueueClient, *, young: Callable[[], int]
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._young = young
        self._waiting: list[_Pending] = []
        self._woken = asyncio.Event()
        self._enough = asyncio.Event()
        self._wanted = 0.0

    async def write(self, ending: Ending) -> bool:
        """Whether the ending counts: False when another attempt owns the job now."""
        pending = _Pending(ending, asyncio.get_running_loop().create_future())
        self._waiting.append(pending)
        self._woken.set()
        if len(self._waiting) >= self._wanted:
            self._enough.set()
        return await pending.written

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            self._enough.clear()
            self._wanted = min(BATCH, self._young() / 2)
            if len(self._waiting) < self._wanted:
                await wait_at_most(self._enough.wait(), LINGER)
            while batch := self._waiting[:BATCH]:
                del self._waiting[: len(batch)]
                await self._write(batch)

    async def _write(self, batch: list[_Pending]) -> None:
        try:
            written = await self._persist([pending.ending for pending in batch])
        except psycopg.Error as error:
            await self._write_each(batch, error)
            return
        for pending in batch:
            _answer(pending, counts=pending.ending.job.job_id in written)
        await self._wake_dispatcher([pending.ending for pending in batch])

    async def _persist(self, endings: list[Ending]) -> frozenset[object]:
        pauses = Pauses()
        while True:
            try:
                return await self._connection.run(lambda found: finish(found, endings))
            except (Unavailable, psycopg.Error) as error:
                if _is_of_the_values(error):
                    raise
                if pauses.is_first:
                    log.warning("job results wait for PostgreSQL", count=len(endings), error=error)
                await asyncio.sleep(pauses.take())

    async def _write_each(self, batch: list[_Pending], error: psycopg.Error) -> None:
        """What PostgreSQL refuses must neither hold up its neighbours nor be tried for ever."""
        if len(batch) > 1:
            for pending in batch:
                await self._write([pending])
            return
        (pending,) = batch
        if pending.ending.result is None and pending.ending.error == _REFUSED:
            log.error("job result cannot be written", exc_info=error)
            _answer(pending, counts=False)
            return
        log.error("job result was refused by PostgreSQL", exc_info=error)
        pending.ending = replace(
            pending.ending, state=JobState.DISCARDED, result=None, error=_REFUSED, delay=None
        )
        await self._write([pending])

    async def _wake_dispatcher(self, endings: list[Ending]) -> None:
        queues = {e.job.queue for e in endings if e.state is JobState.AVAILABLE}
        if queues:
            try:
                await tell(self._queue, wake=queues)
            except QueueUnavailable:
                return


_REFUSED: Final = {
    "code": "job.not_storable",
    "detail": "PostgreSQL refused to store how this job ended.",
}


_OF_VALUES: Final = frozenset({"22", "23", "54"})
"""Classes of states: data exception, integrity constraint, program limit (PostgreSQL, app. A)."""


def _is_of_the_values(error: Unavailable | psycopg.Error) -> bool:
    """Whether no server would ever store it; without a state psycopg itself could not send it.

    Anything else (a standby, a schema in the midst of a change) is the server's trouble, and ends.
    """
    if isinstance(error, Unavailable):
        return False
    return (error.sqlstate or "22")[:2] in _OF_VALUES


def _answer(pending: _Pending, *, counts: bool) -> None:
    if not pending.written.done():
        pending.written.set_result(counts)
