"""What the properties of a new job may be, checked before anything is sent to PostgreSQL."""

from collections.abc import Iterator
from typing import Final

from jangada.errors import FieldError
from jangada.jobs.errors import InvalidJob
from jangada.jobs.schemas import NewJob

PRIORITIES: Final = range(1, 5)
MOST_ATTEMPTS: Final = 10_000
MOST_TAGS: Final = 20
LONGEST_TAG: Final = 100
LONGEST_QUEUE: Final = 100


def check(job: NewJob) -> None:
    """Raise `InvalidJob`, which names each property that is wrong."""
    faults = list(_faults(job))
    if faults:
        detail = f"A job of kind {job.args.kind} is wrong: {'; '.join(d for _, d in faults)}."
        raise InvalidJob(
            detail, errors=[FieldError(f"/{name}", InvalidJob.code, said) for name, said in faults]
        )


def _faults(job: NewJob) -> Iterator[tuple[str, str]]:
    if job.priority not in PRIORITIES:
        yield "priority", f"the priority must be 1 to 4, not {job.priority}"
    if not 1 <= job.most_attempts <= MOST_ATTEMPTS:
        yield "max_attempts", f"max_attempts must be 1 to {MOST_ATTEMPTS}, not {job.most_attempts}"
    if job.scheduled_at is not None and job.scheduled_at.tzinfo is None:
        yield "scheduled_at", "scheduled_at must have a time zone"
    if not _is_name(job.queue_name, LONGEST_QUEUE):
        yield "queue", f"the queue must have 1 to {LONGEST_QUEUE} characters, all printable"
    if job.tags:
        yield from _faults_of_tags(job)


def _faults_of_tags(job: NewJob) -> Iterator[tuple[str, str]]:
    if isinstance(job.tags, str):
        yield "tags", "tags must be several texts, not one"
    elif len(job.tags) > MOST_TAGS:
        yield "tags", f"a job has at most {MOST_TAGS} tags"
    elif not all(_is_name(tag, LONGEST_TAG) for tag in job.tags):
        yield "tags", f"a tag must have 1 to {LONGEST_TAG} characters, all printable"


def _is_name(text: str, longest: int) -> bool:
    return 1 <= len(text) <= longest and text.isprintable()
