"""Jobs for tests: an application of its own, which the workers under test find by entry point.

What handlers do they write to tables of the test: `signs` at once, `effects` together with the
completion of their job. They wait at gates that the test opens.
"""

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.errors import NotFound, Unavailable
from jangada.jobs.context import JobContext
from jangada.jobs.errors import LeaseLost
from jangada.jobs.limits import Concurrency, RateLimit
from jangada.jobs.outcomes import Cancel, Discard, Snooze
from jangada.jobs.registry import handles
from jangada.jobs.schemas import JobArgs
from jangada.jobs.service import enqueue

POLL = 0.05


def start_of(context: JobContext) -> dict[str, object]:
    """What names one start of a job: an attempt that was killed stays without an end."""
    return {"job": context.job_id, "attempt": context.attempt}


async def sign(context: JobContext, what: str) -> None:
    names = {**start_of(context), "pid": os.getpid(), "what": what}
    async with context.transaction() as session:
        await session.execute(text("INSERT INTO signs VALUES (:job, :attempt, :pid, :what)"), names)


async def effect(context: JobContext, session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO effects VALUES (:job, :attempt)"), start_of(context))


async def gate(context: JobContext, name: str) -> None:
    while True:
        async with context.transaction() as session:
            found = await session.scalar(
                text("SELECT count(*) FROM gates WHERE name = :name"), {"name": name}
            )
        if found:
            return
        await asyncio.sleep(POLL)


class Effect(JobArgs):
    kind: ClassVar[str] = "test.effect"
    gate: str = ""


@handles(Effect)
async def run_effect(args: Effect, context: JobContext) -> None:
    """Signs, waits at its gate, and commits its effect together with its completion."""
    await sign(context, "started")
    try:
        if args.gate:
            await gate(context, args.gate)
        async with context.transaction() as session:
            await effect(context, session)
            await context.complete(session, {"attempt": context.attempt})
    except LeaseLost:
        await sign(context, "lease lost")
        raise
    except asyncio.CancelledError:
        sys.stderr.write(f"cancelled: {context.job_id}\n")  # where a sign may come too late
        await asyncio.shield(sign(context, "cancelled"))
        raise


class Answer(JobArgs):
    kind: ClassVar[str] = "test.answer"
    value: Any = None


class Answered(BaseModel):
    value: Any


@handles(Answer)
async def run_answer(args: Answer, context: JobContext) -> Answered:
    return Answered(value=args.value)


class Parent(JobArgs):
    kind: ClassVar[str] = "test.parent"


@handles(Parent)
async def run_parent(_: Parent, context: JobContext) -> None:
    async with context.transaction() as session:
        await enqueue(session, Answer(), tenant_id=context.tenant_id)
        await context.complete(session)


class HoldInterpreter(JobArgs):
    kind: ClassVar[str] = "test.hold-interpreter"
    seconds: int = 3


@handles(HoldInterpreter)
async def run_hold_interpreter(args: HoldInterpreter, context: JobContext) -> None:
    """C code that keeps the interpreter lock: not even other threads run meanwhile.

    The first start only: a second one is there to show that the job was handed on.
    """
    await sign(context, "started")
    if context.attempt == 1:
        ctypes.PyDLL(None).sleep(args.seconds)
    async with context.transaction() as session:
        await effect(context, session)
        await context.complete(session)


class Hog(JobArgs):
    kind: ClassVar[str] = "test.hog"


@handles(Hog, timeout=timedelta(seconds=2))
async def run_hog(_: Hog, context: JobContext) -> None:
    """C code that would never give the interpreter back; from the second start on it behaves.

    At once, and without a sign: its timeout isn't to end it at anything else.
    """
    if context.attempt == 1:
        ctypes.PyDLL(None).sleep(600)


class Crash(JobArgs):
    kind: ClassVar[str] = "test.crash"
    times: int = 1000


@handles(Crash)
async def run_crash(args: Crash, context: JobContext) -> None:
    """Kills its process, so many times."""
    await sign(context, "started")
    if context.attempt <= args.times:
        os.kill(os.getpid(), signal.SIGKILL)
    async with context.transaction() as session:
        await effect(context, session)
        await context.complete(session)


class Leave(JobArgs):
    kind: ClassVar[str] = "test.leave"
    how: str = "exit"


@handles(Leave)
async def run_leave(args: Leave, context: JobContext) -> None:
    await sign(context, "started")
    if args.how == "exit":
        sys.exit(0)
    os._exit(0)


class Fail(JobArgs):
    kind: ClassVar[str] = "test.fail"
    how: str
    until: int = 1000


@handles(Fail)
async def run_fail(args: Fail, context: JobContext) -> dict[str, int]:
    """Fails in a way of the test's choice before it succeeds."""
    if context.attempt < args.until:
        await _fail(args.how, context)
    return {"attempt": context.attempt}


async def _fail(how: str, context: JobContext) -> None:
    match how:
        case "snooze":
            raise Snooze(timedelta(0))
        case "discard":
            raise Discard("not worth it")
        case "cancel":
            raise Cancel("changed its mind")
        case "not found":
            raise NotFound("There is nothing there.")
        case "unavailable":
            raise Unavailable("Try later.")
        case "swallowed completion":
            async with context.transaction() as session:
                await context.complete(session)
                raise RuntimeError("after the completion")
        case _:
            raise RuntimeError("unknown trouble")


class Overdue(JobArgs):
    kind: ClassVar[str] = "test.overdue"
    how: str


@handles(Overdue, timeout=timedelta(milliseconds=300))
async def run_overdue(args: Overdue, _: JobContext) -> None:
    """Takes longer than it may, in one turn of the loop or in many."""
    if args.how == "late":
        # allow sleep: its first turn of the loop alone is longer than its timeout
        time.sleep(0.4)  # noqa: ASYNC251 - that is what it is about
        await asyncio.sleep(0.1)  # allow sleep: the turn after it
    await asyncio.Event().wait()


class Threaded(JobArgs):
    kind: ClassVar[str] = "test.threaded"
    path: str


@handles(Threaded)
def run_threaded(args: Threaded, context: JobContext) -> dict[str, int]:
    """A sync handler: runs in a thread until a file appears."""
    path = Path(args.path)
    path.with_suffix(".started").touch()
    while not path.exists():
        time.sleep(POLL)
    return {"attempt": context.attempt}


class Stubborn(JobArgs):
    kind: ClassVar[str] = "test.stubborn"
    gate: str


@handles(Stubborn)
async def run_stubborn(args: Stubborn, context: JobContext) -> None:
    """Ignores being cancelled until its gate opens."""
    await sign(context, "started")
    waiting = asyncio.ensure_future(gate(context, args.gate))
    while not waiting.done():
        try:
            await asyncio.wait({waiting})
        except asyncio.CancelledError:
            await sign(context, "ignored")
    async with context.transaction() as session:
        await effect(context, session)
        await context.complete(session)


@asynccontextmanager
async def spanned(context: JobContext, key: str) -> AsyncIterator[None]:
    """Say when the handler began and when it ended, by PostgreSQL's clock."""
    names = {"tenant": context.tenant_id, **start_of(context), "pid": os.getpid(), "key": key}
    statement = "INSERT INTO spans VALUES (:tenant, :job, :attempt, :pid, :key, clock_timestamp())"
    async with context.transaction() as session:
        await session.execute(text(statement), names)
    yield
    while not await end_span(context):  # noqa: ASYNC110 - PostgreSQL's clock is asked
        await asyncio.sleep(POLL)


async def end_span(context: JobContext) -> bool:
    """Not at once: what takes no time overlaps with nothing."""
    statement = """
        UPDATE spans SET ended = clock_timestamp()
        WHERE job = :job AND attempt = :attempt
            AND began < clock_timestamp() - interval '20 ms'
        RETURNING job"""
    async with context.transaction() as session:
        return await session.scalar(text(statement), start_of(context)) is not None


class Limited(JobArgs):
    kind: ClassVar[str] = "test.limited"
    concurrency: ClassVar = Concurrency(limit=3, per_key=1, key=lambda args: args.key)
    key: str = ""
    gate: str = ""


@handles(Limited)
async def run_limited(args: Limited, context: JobContext) -> None:
    """Three at once of all, one at once of a tenant's key."""
    await sign(context, "started")
    async with spanned(context, args.key):
        if args.gate:
            await gate(context, args.gate)
    async with context.transaction() as session:
        await context.complete(session)


class Rated(JobArgs):
    kind: ClassVar[str] = "test.rated"
    rate_limit: ClassVar = RateLimit(5, per=timedelta(seconds=1))


@handles(Rated)
async def run_rated(_: Rated, __: JobContext) -> None:
    """Five starts a second."""


class Steps(JobArgs):
    kind: ClassVar[str] = "test.steps"
    gate: str


@handles(Steps)
async def run_steps(args: Steps, context: JobContext) -> None:
    """Reports a thousand steps at once, then waits."""
    for step in range(1000):
        await context.progress(step + 1, 1000)
    await gate(context, args.gate)
