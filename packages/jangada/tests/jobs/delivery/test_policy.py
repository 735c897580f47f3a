"""The table from what a handler raised to what becomes of the job."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from jangada.errors import Conflict, FieldError, Invalid, NotFound, RateLimited, Unavailable
from jangada.jobs.delivery.errors import JobTimedOut
from jangada.jobs.delivery.grant import GrantedJob
from jangada.jobs.delivery.policy import (
    BACKOFF_LONGEST,
    MOST_FIELD_ERRORS,
    backoff,
    explain,
    failed,
)
from jangada.jobs.models import JobState
from jangada.jobs.outcomes import Cancel, Discard, Snooze

MINUTE = timedelta(minutes=1)


def job(**changes: int) -> GrantedJob:
    values: dict[str, Any] = {
        "tenant_id": UUID(int=1),
        "job_id": UUID(int=2),
        "kind": "test.greet",
        "queue": "default",
        "args": {},
        "attempt": 1,
        "max_attempts": 3,
        "crashes": 0,
        "failures": 0,
        "request_id": None,
        "traceparent": None,
        "waited_seconds": 0.1,
    }
    return GrantedJob(**(values | changes))


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("?"), JobState.RETRYABLE),
        (Unavailable("?"), JobState.RETRYABLE),
        (RateLimited("?"), JobState.RETRYABLE),
        (JobTimedOut("?"), JobState.RETRYABLE),
        (Invalid("?"), JobState.DISCARDED),
        (NotFound("?"), JobState.DISCARDED),
        (Conflict("?"), JobState.DISCARDED),
        (Discard("?"), JobState.DISCARDED),
        (Cancel("?"), JobState.CANCELLED),
        (Snooze(MINUTE), JobState.SCHEDULED),
    ],
)
def test_each_error_has_its_ending(error: Exception, state: JobState) -> None:
    assert failed(job(), error).state == state


@pytest.mark.parametrize(
    ("attempt", "state"), [(2, "retryable"), (3, "discarded"), (4, "discarded")]
)
def test_attempts_end(attempt: int, state: str) -> None:
    assert failed(job(attempt=attempt), ValueError()).state == state


def test_a_snooze_is_never_the_last_attempt() -> None:
    ending = failed(job(attempt=3), Snooze(MINUTE))
    assert (ending.state, ending.extra_attempts, ending.delay) == ("scheduled", 1, MINUTE)


@pytest.mark.parametrize(
    ("failures", "drawn", "seconds"),
    [(1, 0.0, 0), (1, 0.5, 1), (2, 0.5, 2), (5, 0.5, 16), (12, 0.5, 1800), (10_000, 0.5, 1800)],
)
def test_backoff_doubles_up_to_an_hour(failures: int, drawn: float, seconds: float) -> None:
    assert backoff(failures, drawn) == timedelta(seconds=seconds)
    assert backoff(failures, drawn) <= BACKOFF_LONGEST


def test_the_delay_grows_with_the_failures_not_the_attempts() -> None:
    """A job that snoozed a hundred times isn't punished for it."""
    ending = failed(job(attempt=100, max_attempts=200), ValueError(), draw=lambda: 0.5)
    assert ending.delay == timedelta(seconds=1)


def test_retry_after_is_waited_for_at_least() -> None:
    ending = failed(job(), RateLimited("slow", retry_after=MINUTE), draw=lambda: 0.5)
    assert ending.delay == timedelta(seconds=61)


def test_an_unknown_errors_message_is_withheld() -> None:
    explained = explain(ValueError("password hunter2"))
    assert explained["code"] == "job.failed"
    assert "hunter2" not in explained["detail"]


def test_an_expected_error_explains_itself() -> None:
    faults = [FieldError("/file", "contact.bad_file", "It is empty.") for _ in range(30)]
    explained = explain(Invalid("The file is empty.", errors=faults))
    assert (explained["code"], explained["detail"]) == ("request.invalid", "The file is empty.")
    assert len(explained["errors"]) == MOST_FIELD_ERRORS
    assert explained["errors"][0]["pointer"] == "/file"


def test_a_kinds_own_backoff_is_told_what_happened() -> None:
    seen: list[tuple[int, BaseException]] = []

    def chosen(failures: int, error: BaseException) -> timedelta:
        seen.append((failures, error))
        return MINUTE

    error = ValueError("?")
    ending = failed(job(failures=2, attempt=3, max_attempts=9), error, chosen=chosen)
    assert (ending.state, ending.delay) == (JobState.RETRYABLE, MINUTE)
    assert seen == [(3, error)]


@pytest.mark.parametrize(
    ("chosen", "asked", "delay"),
    [
        (None, timedelta(0), timedelta(seconds=1)),
        (timedelta(0), timedelta(0), timedelta(0)),
        (-MINUTE, timedelta(0), timedelta(0)),
        (MINUTE, 2 * MINUTE, 2 * MINUTE),
        (3 * MINUTE, 2 * MINUTE, 3 * MINUTE),
    ],
)
def test_its_answer_counts_unless_somebody_asked_for_a_longer_wait(
    chosen: timedelta | None, asked: timedelta, delay: timedelta
) -> None:
    error = Unavailable("?", retry_after=asked)
    ending = failed(job(), error, chosen=lambda *_: chosen, draw=lambda: 0.5)
    assert ending.delay == delay


def test_it_is_not_asked_about_what_isnt_tried_again() -> None:
    def never(failures: int, error: BaseException) -> timedelta:
        raise AssertionError(failures, error)

    for error in (Snooze(MINUTE), Cancel("?"), Discard("?"), Invalid("?")):
        assert failed(job(), error, chosen=never).state is not JobState.RETRYABLE
    assert failed(job(attempt=3), ValueError("?"), chosen=never).state is JobState.DISCARDED
