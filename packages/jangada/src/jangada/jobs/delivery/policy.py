"""What becomes of a job after an attempt: a pure table from how it ended to what is written.

`Unavailable`, `RateLimited` and errors that we don't know are tried again, with exponential backoff
and full jitter; the other expected errors would only fail again, so they discard the job.
"""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import msgspec
import orjson

from jangada.errors import FieldError, JangadaError, RateLimited, Unavailable
from jangada.jobs.delivery.grant import GrantedJob
from jangada.jobs.models import JobState
from jangada.jobs.outcomes import Cancel, Discard, Snooze
from jangada.jobs.registry import Backoff
from jangada.telemetry import describe

BACKOFF_BASE: Final = timedelta(seconds=2)
BACKOFF_LONGEST: Final = timedelta(hours=1)
MOST_FIELD_ERRORS: Final = 20
LONGEST_DETAIL: Final = 2_000


class Ending(msgspec.Struct, frozen=True):
    """What is written at the end of an attempt.

    `delay` begins when it is written; `extra_attempts` makes up for a start that counts for nothing
    (the attempt itself is the fence and never goes down).
    """

    job: GrantedJob
    state: JobState
    result: str | None = None
    error: dict[str, Any] | None = None
    delay: timedelta | None = None
    extra_attempts: int = 0
    done: int | None = None
    total: int | None = None


def completed(
    job: GrantedJob, result: str | None, *, done: int | None = None, total: int | None = None
) -> Ending:
    return Ending(job, JobState.COMPLETED, result=result, done=done, total=total)


def handed_back(job: GrantedJob) -> Ending:
    """The worker stops before the job is through: it starts anew elsewhere at once."""
    return Ending(job, JobState.AVAILABLE, extra_attempts=1)


def cancelled(job: GrantedJob, reason: str | None = None) -> Ending:
    error = None if reason is None else {"code": "job.cancelled", "detail": _clean(reason)}
    return Ending(job, JobState.CANCELLED, error=error)


def failed(
    job: GrantedJob,
    error: BaseException,
    *,
    chosen: Backoff | None = None,
    draw: Callable[[], float] = random.random,
) -> Ending:
    """The ending for what a handler raised; `chosen` is its kind's own backoff."""
    match error:
        case Snooze():
            return Ending(job, JobState.SCHEDULED, delay=error.delay, extra_attempts=1)
        case Cancel():
            return cancelled(job, error.reason)
        case Discard():
            detail = {"code": "job.discarded", "detail": _clean(error.reason)}
            return Ending(job, JobState.DISCARDED, error=detail)
        case _ if _is_final(error) or job.attempt >= job.max_attempts:
            return Ending(job, JobState.DISCARDED, error=explain(error))
        case _:
            failures, at_least = job.failures + 1, _retry_after(error)
            delay = chosen(failures, error) if chosen else None
            if delay is None:
                delay = backoff(failures, draw(), at_least=at_least)
            delay = max(delay, at_least)
            return Ending(job, JobState.RETRYABLE, error=explain(error), delay=delay)


def _is_final(error: BaseException) -> bool:
    return isinstance(error, JangadaError) and not isinstance(error, Unavailable | RateLimited)


def _retry_after(error: BaseException) -> timedelta:
    found = error.retry_after if isinstance(error, JangadaError) else None
    return found or timedelta(0)


def backoff(failures: int, drawn: float, *, at_least: timedelta = timedelta(0)) -> timedelta:
    """The wait after so many failures; `drawn` from [0, 1) is the jitter."""
    # The exponent is bounded: 2 ** 1000 is no duration.
    longest = min(BACKOFF_BASE * (1 << min(failures - 1, 20)), BACKOFF_LONGEST)
    return at_least + longest * drawn


def explain(error: BaseException) -> dict[str, Any]:
    """An error as it is kept with the job and shown to its owner: it holds no secret."""
    if not isinstance(error, JangadaError):
        return {"code": "job.failed", "detail": _clean(describe(error))}
    explained: dict[str, Any] = {"code": error.code, "detail": _clean(error.detail)}
    if error.errors:
        explained["errors"] = [_field_error(each) for each in error.errors[:MOST_FIELD_ERRORS]]
    return explained


def _field_error(error: FieldError) -> dict[str, str]:
    return {"pointer": _clean(error.pointer), "code": error.code, "detail": _clean(error.detail)}


def _clean(text: str) -> str:
    """PostgreSQL's jsonb knows neither NUL nor lone surrogates."""
    return text[:LONGEST_DETAIL].replace("\0", "").encode("utf-8", "replace").decode()


def encode_error(error: dict[str, Any] | None) -> str | None:
    return None if error is None else orjson.dumps(error).decode()
