"""Progress on its way to Valkey: a handler may report as often as it likes."""

import asyncio
from contextlib import suppress
from typing import Final

from jangada.jobs.delivery.grant import GrantedJob
from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueUnavailable
from jangada_queue.signals import Progress, write_progress

INTERVAL: Final = 0.1
"""Ten times a second at most; the last report before a silence is always shown."""


class ProgressReporter:
    """The `report` of one attempt's context. Never waits and never fails."""

    def __init__(self, queue: QueueClient, job: GrantedJob) -> None:
        self._queue = queue
        self._job = job
        self._latest: tuple[int, int | None] | None = None
        self._changes = 0
        self._showing: asyncio.Task[None] | None = None

    async def __call__(self, done: int, total: int | None) -> None:
        self._latest = (done, total)
        if self._showing is None or self._showing.done():
            self._showing = asyncio.create_task(self._show())

    async def _show(self) -> None:
        while self._latest is not None:
            done, total = self._latest
            self._latest = None
            self._changes += 1
            progress = Progress(self._job.attempt, self._changes, done, total)
            # A lost one doesn't matter: the next, or the end of the job, says more anyway.
            with suppress(QueueUnavailable):
                await write_progress(self._queue, str(self._job.job_id), progress)
            await asyncio.sleep(INTERVAL)

    async def close(self) -> None:
        """Stop showing: from here on the job's row says how far it came."""
        if self._showing is not None and not self._showing.done():
            self._showing.cancel()
            await asyncio.wait({self._showing})
