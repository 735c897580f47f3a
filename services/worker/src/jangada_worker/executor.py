"""The way of one attempt, as a pipeline of small steps over one struct.

    resolve → perform → settle → record → report → release

`resolve` finds handler and arguments; `perform` runs the handler until it ends, its time is over or
somebody interrupts it; `settle` decides what that means for the job; `record` writes it, fenced by
the attempt; `report` tells log and metrics; `release` waits for what cannot be stopped (a thread),
because its slot isn't free before.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec.structs import replace

from jangada.errors import JangadaError
from jangada.jobs import registry
from jangada.jobs.context import JobContext
from jangada.jobs.delivery import policy
from jangada.jobs.delivery.errors import JobInterrupted, JobTimedOut
from jangada.jobs.delivery.grant import GrantedJob
from jangada.jobs.delivery.policy import Ending
from jangada.jobs.errors import LeaseLost, UnknownJobKind
from jangada.jobs.models import JobState
from jangada.jobs.outcomes import Outcome, Snooze
from jangada.jobs.payloads import Result, decode_args, encode_result
from jangada.jobs.registry import Registration
from jangada.runtime import Runtime
from jangada.telemetry import bind, get_logger, unbind_all
from jangada_worker.isolation import InLoop, InThread, Isolation
from jangada_worker.link import Observation
from jangada_worker.spans import job_span

log = get_logger(__name__)

IN_LOOP: Final = InLoop()
UNKNOWN_KIND_DELAY: Final = timedelta(minutes=1)


class Interruption(StrEnum):
    """Why an attempt is ended from outside."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    LEASE_LOST = "lease_lost"
    HAND_BACK = "hand_back"


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all attempts of a process share."""

    runtime: Runtime
    threads: Executor
    write: Callable[[Ending], Awaitable[bool]]
    observe: Callable[[Observation], None]


@dataclass(slots=True)
class Execution:
    """One attempt of one job on its way through the steps."""

    shop: Workshop
    job: GrantedJob
    context: JobContext
    interrupted: asyncio.Future[Interruption]
    slots: int = 1
    recorded: asyncio.Event = field(default_factory=asyncio.Event)
    started: float = field(default_factory=time.monotonic)
    registration: Registration | None = None
    arguments: Any = None
    work: asyncio.Future[Result] | None = None
    result: Result = None
    error: BaseException | None = None
    ending: Ending | None = None
    outcome: str = ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def why(self) -> Interruption | None:
        return self.interrupted.result() if self.interrupted.done() else None

    def interrupt(self, why: Interruption) -> None:
        """End the attempt soon; the first reason counts."""
        if not self.interrupted.done():
            self.interrupted.set_result(why)


type Step = Callable[[Execution], Awaitable[None]]


async def execute(execution: Execution) -> None:
    """Run an attempt to its end. Raises nothing that the handler raised."""
    job = execution.job
    unbind_all()
    bind(job_id=job.job_id, request_id=job.request_id, tenant_id=job.tenant_id)
    with job_span(job):
        for step in STEPS:
            await step(execution)


async def resolve(execution: Execution) -> None:
    job = execution.job
    try:
        execution.registration = registry.get(job.kind)
        execution.arguments = decode_args(execution.registration.args, job.args)
    except UnknownJobKind:
        # Kinds are checked at the claim, so this is a rolling deployment at its worst.
        execution.error = Snooze(UNKNOWN_KIND_DELAY)
    except Exception as error:  # noqa: BLE001 - a validator of the arguments may raise anything
        execution.error = error


async def perform(execution: Execution) -> None:
    registration = execution.registration
    if registration is None or execution.error is not None:
        return
    if execution.interrupted.done():
        execution.error = JobInterrupted("The attempt was interrupted before it began.")
        return
    isolation, began = _isolation(execution, registration), time.monotonic()
    execution.work = work = isolation.start(
        registration.handler, execution.arguments, execution.context
    )
    if not work.done():
        either: set[asyncio.Future[Any]] = {work, execution.interrupted}
        await asyncio.wait(
            either,
            timeout=max(0.0, began + registration.timeout.total_seconds() - time.monotonic()),
            return_when=asyncio.FIRST_COMPLETED,
        )
    if not work.done():
        execution.interrupt(Interruption.TIMEOUT)
        await isolation.stop(work)
    if not work.done():
        execution.error = JobInterrupted("The handler did not stop when it was asked to.")
    elif work.cancelled():
        execution.error = JobInterrupted("The attempt was cancelled from within.")
    elif (error := work.exception()) is not None:
        execution.error = error
    else:
        execution.result = work.result()


def _isolation(execution: Execution, registration: Registration) -> Isolation:
    return IN_LOOP if registration.is_async else InThread(execution.shop.threads)


async def settle(execution: Execution) -> None:
    """Decide the ending; none where there is nothing to write (any more)."""
    if execution.error is None:
        execution.ending = _success(execution)
    elif execution.why is Interruption.LEASE_LOST or isinstance(execution.error, LeaseLost):
        execution.outcome = "lease_lost"
    else:
        execution.ending = _failure(execution, execution.error)


def _failure(execution: Execution, error: BaseException) -> Ending:
    """Who interrupted an attempt decides what becomes of it, whatever the handler then raised."""
    match execution.why:
        case Interruption.CANCEL:
            return policy.cancelled(execution.job)
        case Interruption.HAND_BACK:
            return policy.handed_back(execution.job)
        case Interruption.TIMEOUT:
            return _failed(execution, _timed_out(execution))
        case _:
            return _failed(execution, error)


def _failed(execution: Execution, error: BaseException) -> Ending:
    """By the kind's own backoff; one that raises is its author's mistake, and no job's end."""
    registration = execution.registration
    try:
        return policy.failed(
            execution.job, error, chosen=registration.backoff if registration else None
        )
    except Exception:
        log.exception("backoff failed; the usual one is taken", kind=execution.job.kind)
        return policy.failed(execution.job, error)


def _success(execution: Execution) -> Ending | None:
    """A handler that completed the job in its own transaction leaves nothing to write."""
    context, job = execution.context, execution.job
    if context.completed:
        execution.outcome = str(JobState.COMPLETED)
        return None
    try:
        result = encode_result(execution.result)
    except Exception as error:  # noqa: BLE001 - whatever a handler may return
        execution.error = error
        return policy.failed(job, error)
    return policy.completed(job, result)


def _timed_out(execution: Execution) -> JobTimedOut:
    limit = execution.registration.timeout if execution.registration else timedelta(0)
    error = JobTimedOut(f"The attempt took longer than {limit.total_seconds():g} s.")
    error.__cause__ = execution.error
    execution.error = error
    return error


async def record(execution: Execution) -> None:
    if execution.ending is not None:
        context = execution.context
        ending = replace(execution.ending, done=context.done, total=context.total)
        counts = await execution.shop.write(ending)
        execution.outcome = str(ending.state) if counts else "lease_lost"
    execution.recorded.set()


async def report(execution: Execution) -> None:
    job = execution.job
    execution.shop.observe(
        Observation(job.queue, job.kind, execution.outcome, execution.seconds, job.waited_seconds)
    )
    _log_end(execution)


def _log_end(execution: Execution) -> None:
    error, outcome = execution.error, execution.outcome
    said = {
        "kind": execution.job.kind,
        "attempt": execution.job.attempt,
        "outcome": outcome,
        "seconds": round(execution.seconds, 3),
    }
    if outcome == "lease_lost":
        log.warning("job lost its lease", **said)
    elif error is None or isinstance(error, Outcome) or execution.why is Interruption.HAND_BACK:
        log.info("job ended", **said)
    elif isinstance(error, JangadaError):
        log.warning("job ended", error=error, **said)
    else:
        log.error("job failed", exc_info=error, **said)


async def release(execution: Execution) -> None:
    work = execution.work
    if work is not None and not work.done():
        log.warning("handler goes on without its job", kind=execution.job.kind)
        await asyncio.wait({work})
    if work is not None and not work.cancelled():
        work.exception()  # it was dealt with, or came too late to count


STEPS: Final[tuple[Step, ...]] = (resolve, perform, settle, record, report, release)
