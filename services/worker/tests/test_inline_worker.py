"""Jobs that a test runs by itself end as they do in production."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar

import pytest
import structlog
from pydantic import ConfigDict

from jangada.config import Settings
from jangada.db import Database
from jangada.errors import Invalid
from jangada.jobs import service
from jangada.jobs.context import JobContext
from jangada.jobs.errors import UnknownJobKind
from jangada.jobs.models import Job
from jangada.jobs.outcomes import Cancel, Discard, Snooze
from jangada.jobs.registry import handles
from jangada.jobs.schemas import JobArgs, Unique
from jangada.runtime import Runtime
from jangada.testing import FrozenClock, Person, frozen_runtime
from jangada_worker import testing
from jangada_worker.testing import InlineWorker, open_inline_worker

pytestmark = pytest.mark.anyio

type Enqueue = Callable[..., Awaitable[Job]]

HOUR = timedelta(hours=1)


class Try(JobArgs):
    """Ends as it is told to, and notes each start."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: ClassVar[str] = "inline.try"
    how: str = "return"


class Patient(JobArgs):
    kind: ClassVar[str] = "inline.patient"


class Careless(JobArgs):
    kind: ClassVar[str] = "inline.careless"


class Chain(JobArgs):
    kind: ClassVar[str] = "inline.chain"
    queue: ClassVar[str] = "links"
    left: int


class Threaded(JobArgs):
    kind: ClassVar[str] = "inline.threaded"


class Nobody(JobArgs):
    kind: ClassVar[str] = "inline.nobody"


ERRORS: dict[str, Exception] = {
    "snooze": Snooze(HOUR),
    "discard": Discard("no"),
    "cancel": Cancel("no"),
    "invalid": Invalid("no"),
    "error": ZeroDivisionError("no"),
}


@handles(Try)
async def try_it(args: Try, context: JobContext) -> dict[str, Any]:
    if args.how in ERRORS:
        raise ERRORS[args.how]
    return {"attempt": context.attempt}


@handles(Patient, backoff=lambda failures, _: failures * HOUR)
async def be_patient(args: Patient, context: JobContext) -> None:
    raise ZeroDivisionError


@handles(Careless, backoff=lambda failures, _: timedelta(failures / 0))
async def be_careless(args: Careless, context: JobContext) -> None:
    raise ZeroDivisionError


@handles(Chain)
async def go_on(args: Chain, context: JobContext) -> None:
    async with context.transaction() as session:
        if args.left:
            next_link = Chain(left=args.left - 1)
            await service.enqueue(session, next_link, tenant_id=context.tenant_id)
        await context.complete(session, {"left": args.left})


@handles(Threaded)
def run_in_a_thread(args: Threaded, context: JobContext) -> dict[str, int]:
    return {"attempt": context.attempt}


@pytest.fixture
def enqueue(database: Database, person: Person) -> Enqueue:
    async def enqueue(args: JobArgs, **options: Any) -> Job:  # noqa: ANN401 - as enqueue has them
        async with database.transaction(person.tenant_id) as session:
            return await service.enqueue(session, args, tenant_id=person.tenant_id, **options)

    return enqueue


@pytest.mark.parametrize(
    ("how", "state", "codes"),
    [
        ("return", "completed", []),
        ("snooze", "scheduled", []),
        ("discard", "discarded", ["job.discarded"]),
        ("cancel", "cancelled", ["job.cancelled"]),
        ("invalid", "discarded", ["request.invalid"]),
        ("error", "retryable", ["job.failed"]),
    ],
)
async def test_each_outcome_is_written_as_a_worker_writes_it(
    inline_worker: InlineWorker, enqueue: Enqueue, *, how: str, state: str, codes: list[str]
) -> None:
    ran = await inline_worker.run(await enqueue(Try(how=how)))
    assert (ran.job.state, ran.job.attempt) == (state, 1)
    assert [error["code"] for error in ran.job.errors] == codes
    assert ran.error is ERRORS.get(how)
    assert ran.job.worker_id is None


async def test_what_is_due_runs_with_all_that_it_enqueues(
    inline_worker: InlineWorker, enqueue: Enqueue
) -> None:
    await enqueue(Chain(left=3))
    await enqueue(Threaded())
    await enqueue(Try(), priority=1)
    ran = await inline_worker.run_due()
    kinds = [each.job.kind for each in ran]
    assert kinds == ["inline.try", "inline.chain", "inline.threaded", *["inline.chain"] * 3]
    assert [each.job.result for each in ran[-3:]] == [{"left": left} for left in (2, 1, 0)]
    assert await inline_worker.run_due() == []


async def test_only_the_queues_that_are_named_run(
    inline_worker: InlineWorker, enqueue: Enqueue
) -> None:
    await enqueue(Chain(left=0))
    await enqueue(Try())
    assert [each.job.kind for each in await inline_worker.run_due("links")] == ["inline.chain"]


async def test_time_passes_when_the_test_says_so(
    inline_worker: InlineWorker, enqueue: Enqueue
) -> None:
    """A kind's own backoff: an hour, then two."""
    await enqueue(Patient())
    (first,) = await inline_worker.run_due()
    assert await inline_worker.run_due() == []
    await inline_worker.advance(HOUR)
    (second,) = await inline_worker.run_due()
    await inline_worker.advance(HOUR)
    assert await inline_worker.run_due() == []
    await inline_worker.advance(HOUR)
    (third,) = await inline_worker.run_due()
    assert [ran.job.attempt for ran in (first, second, third)] == [1, 2, 3]


async def test_a_frozen_clock_goes_along_and_unique_periods_end(
    settings: Settings, clock: FrozenClock, enqueue: Enqueue
) -> None:
    unique = Unique(period=HOUR)
    first = await enqueue(Try(), unique=unique)
    before = clock.now()
    async with frozen_runtime(settings, clock) as runtime, open_inline_worker(runtime) as worker:
        await worker.advance(2 * HOUR)
    assert clock.now() - before == 2 * HOUR
    assert (await enqueue(Try(), unique=unique)).id != first.id


async def test_the_last_twenty_errors_are_kept(
    inline_worker: InlineWorker, enqueue: Enqueue
) -> None:
    await enqueue(Try(how="error"), max_attempts=25)
    ran = []
    for _ in range(25):
        ran += await inline_worker.run_due()
        await inline_worker.advance(HOUR)
    assert [each.job.attempt for each in ran] == list(range(1, 26))
    job = ran[-1].job
    assert job.state == "discarded"
    assert [error["attempt"] for error in job.errors] == list(range(6, 26))
    assert {error["detail"] for error in job.errors} == {"ZeroDivisionError: no"}


async def test_a_backoff_that_fails_is_logged_and_the_usual_one_is_taken(
    inline_worker: InlineWorker, enqueue: Enqueue
) -> None:
    with structlog.testing.capture_logs() as lines:
        ran = await inline_worker.run(await enqueue(Careless()))
    assert ran.job.state == "retryable"
    assert [line["event"] for line in lines if line["log_level"] == "error"] == [
        "backoff failed; the usual one is taken",
        "job failed",
    ]


async def test_a_job_that_nobody_handles_is_an_error_of_the_test(
    inline_worker: InlineWorker, enqueue: Enqueue
) -> None:
    job = await enqueue(Nobody())
    with pytest.raises(UnknownJobKind):
        await inline_worker.run_due()
    with pytest.raises(UnknownJobKind):
        await inline_worker.run(job)


async def test_a_job_that_is_not_available_is_not_run(
    inline_worker: InlineWorker, enqueue: Enqueue
) -> None:
    job = (await inline_worker.run(await enqueue(Try()))).job
    with pytest.raises(AssertionError, match="is not available"):
        await inline_worker.run(job)


async def test_jobs_without_an_end_end_the_test(
    runtime: Runtime, inline_worker: InlineWorker, enqueue: Enqueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "MOST_ATTEMPTS", 3)
    await enqueue(Chain(left=100))
    with pytest.raises(AssertionError, match="still jobs due after 3 attempts"):
        await inline_worker.run_due()
