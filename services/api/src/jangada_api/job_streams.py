"""The streams of job events that a process has open: how many there may be, and what feeds them.

Guarantees
- A session, a tenant and the process have only so many open: nobody takes all places.
- All streams of a tenant are fed by one reader, which asks for the jobs that they follow in one
  short transaction every half second. All readers together use at most a quarter of the pool: where
  there are too many for that they look less often, and requests still find a connection.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from jangada.accounts.schemas import Principal
from jangada.errors import RateLimited, Unavailable
from jangada.jobs import service
from jangada.jobs.delivery.progress import latest_progress
from jangada.jobs.models import Job
from jangada.runtime import Runtime
from jangada.telemetry import get_logger
from jangada_queue.signals import Progress

log = get_logger(__name__)

LOOK_EVERY: Final = timedelta(milliseconds=500)
READER: Final = "reader of job events"
MAX_STREAMS: Final = 500
MAX_STREAMS_PER_TENANT: Final = 50
MAX_STREAMS_PER_SESSION: Final = 10


class TooManyStreams(Unavailable):
    """The process has as many event streams open as it allows; poll the job, or try again."""

    code = "job.too_many_streams"


class StreamLimitReached(RateLimited):
    """The session (10) or its tenant (50) has as many event streams open as it may; end some."""

    code = "job.stream_limit_reached"


@dataclass(frozen=True, slots=True)
class Sight:
    """A job at one moment."""

    job: Job
    progress: Progress | None


class JobStreams:
    """The places for streams, and their readers. Open one per process with `open_streams`."""

    def __init__(self, runtime: Runtime, stopping: asyncio.Event) -> None:
        self.turns = asyncio.Semaphore(max(1, runtime.settings.database.pool_size // 4))
        """Held by whoever uses a connection on behalf of streams."""
        self._runtime = runtime
        self._stopping = stopping
        self._readers: dict[UUID, JobReader] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places: Counter[UUID | None] = Counter()

    @property
    def open(self) -> int:
        """How many streams there are."""
        return self._places[None]

    @contextmanager
    def hold(self, principal: Principal) -> Iterator[None]:
        """A place for a stream. Raises `TooManyStreams`, `StreamLimitReached`."""
        if self.open >= MAX_STREAMS:
            raise TooManyStreams("Too many event streams are open; try again later.")
        of_session = self._places[principal.session_id] >= MAX_STREAMS_PER_SESSION
        if of_session or self._places[principal.tenant_id] >= MAX_STREAMS_PER_TENANT:
            raise StreamLimitReached("You have too many event streams open; end some first.")
        taken: Counter[UUID | None] = Counter((None, principal.tenant_id, principal.session_id))
        self._places += taken
        try:
            yield
        finally:
            self._places -= taken  # keeps no zeros

    @contextmanager
    def following(self, tenant_id: UUID, job_id: UUID) -> Iterator["JobReader"]:
        """The tenant's reader, which looks at this job too inside the block."""
        reader = self._readers.get(tenant_id)
        if reader is None or reader.has_ended:
            reader = self._readers[tenant_id] = JobReader(self._runtime, tenant_id, self.turns)
            self._start(reader, tenant_id)
        reader.followed[job_id] += 1
        try:
            yield reader
        finally:
            reader.followed -= Counter((job_id,))

    def _start(self, reader: "JobReader", tenant_id: UUID) -> None:
        def forget(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if self._readers.get(tenant_id) is reader:
                del self._readers[tenant_id]

        task = asyncio.create_task(reader.run(self._stopping), name=READER)
        self._tasks.add(task)
        task.add_done_callback(forget)

    async def ended(self) -> None:
        """Wait for the readers: they end with their streams, or with the process."""
        await asyncio.gather(*self._tasks)


@asynccontextmanager
async def open_streams(runtime: Runtime, stopping: asyncio.Event) -> AsyncIterator[JobStreams]:
    """Streams end, and with them the block, once `stopping` is set."""
    streams = JobStreams(runtime, stopping)
    try:
        yield streams
    finally:
        await streams.ended()


class JobReader:
    """Looks at the jobs that the streams of one tenant follow, for as long as there are any."""

    def __init__(self, runtime: Runtime, tenant_id: UUID, turns: asyncio.Semaphore) -> None:
        self.followed: Counter[UUID] = Counter()
        self.has_ended = False
        self._runtime = runtime
        self._tenant_id = tenant_id
        self._turns = turns
        self._seen: dict[UUID, Sight | None] = {}
        self._looked = asyncio.Event()

    async def next(self, job_id: UUID) -> Sight | None:
        """What the next look finds; None once the job is gone, or nobody looks any more."""
        while not self.has_ended:
            await self._looked.wait()
            if job_id in self._seen:  # else the look began before the stream
                return self._seen[job_id]
        return None

    async def run(self, stopping: asyncio.Event) -> None:
        try:
            while self.followed and not await _happens(stopping, within=LOOK_EVERY):
                await self._look()
                self._tell()
        except Exception:
            log.exception("the reader of event streams failed")
        finally:
            self.has_ended = True
            self._seen = dict.fromkeys(self.followed)
            self._tell()

    async def _look(self) -> None:
        wanted = list(self.followed)
        try:
            async with self._turns, self._runtime.database.read(self._tenant_id) as session:
                jobs = await service.find_jobs(session, self._tenant_id, wanted)
        except Unavailable:
            return  # PostgreSQL is away for a moment: the streams wait for it
        progress = await latest_progress(self._runtime.queue, jobs)
        found = {job.id: Sight(job, progress.get(job.id)) for job in jobs}
        self._seen = dict.fromkeys(wanted) | found

    def _tell(self) -> None:
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()


async def _happens(event: asyncio.Event, *, within: timedelta) -> bool:
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await event.wait()
    except TimeoutError:
        return False
