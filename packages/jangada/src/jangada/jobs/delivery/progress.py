"""How far running jobs are: from Valkey while they run, from the row when they have ended."""

from collections.abc import Sequence
from uuid import UUID

from jangada.jobs.models import Job, JobState
from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueUnavailable
from jangada_queue.signals import Progress, read_progress


async def latest_progress(queue: QueueClient, jobs: Sequence[Job]) -> dict[UUID, Progress]:
    """The progress of each job that has reported any, of its present attempt only.

    `changes` grows with every report of an attempt and is 0 for what the row says. While Valkey is
    absent running jobs have none: it comes back with the next report.
    """
    running = [job for job in jobs if job.state == JobState.RUNNING]
    try:
        live = await read_progress(queue, [str(job.id) for job in running])
    except QueueUnavailable:
        live = {}
    found = {job.id: stored for job in jobs if (stored := _stored(job)) is not None}
    for job in running:
        progress = live.get(str(job.id))
        if progress is not None and progress.attempt == job.attempt:
            found[job.id] = progress
    return found


def _stored(job: Job) -> Progress | None:
    if job.progress_done is None:
        return None
    return Progress(job.attempt, 0, job.progress_done, job.progress_total)
