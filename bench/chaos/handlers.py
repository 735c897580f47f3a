"""The platform's jobs of the bench, which its workers find by an entry point.

What a handler does it writes to the ledger, outside of what is tested; its effect is a row that
commits together with the job's completion.
"""

import asyncio
import ctypes
import os
import time
from pathlib import Path
from typing import ClassVar, Final, Literal

from sqlalchemy import text

from chaos.ledger import write
from jangada.jobs.context import JobContext
from jangada.jobs.registry import handles
from jangada.jobs.schemas import JobArgs

POLL: Final = 0.01
FOLDER: Final = "CHAOS_FOLDER"
_EFFECT: Final = text("INSERT INTO effects VALUES (:job, :attempt)")


class Effect(JobArgs):
    """Takes its time in a way of one's choice, then commits one effect."""

    kind: ClassVar[str] = "chaos.effect"
    gate: str = ""
    seconds: float = 0.0
    how: Literal["sleep", "burn", "interpreter"] = "sleep"


@handles(Effect)
async def run_effect(args: Effect, context: JobContext) -> None:
    folder, job = os.environ[FOLDER], str(context.job_id)
    write(folder, "start", job)
    try:
        await _take_time(args, folder)
        async with context.transaction() as session:
            await session.execute(_EFFECT, {"job": context.job_id, "attempt": context.attempt})
            await context.complete(session)
    except BaseException:  # whatever it is: this start is over, and another one may come
        write(folder, "failed", job)
        raise
    write(folder, "end", job)


async def _take_time(args: Effect, folder: str) -> None:
    end = time.monotonic() + args.seconds
    match args.how:
        case "burn":
            while time.monotonic() < end:
                pass
        case "interpreter":
            ctypes.PyDLL(None).sleep(int(args.seconds))
        case "sleep":
            gate = Path(folder) / args.gate
            while time.monotonic() < end or not gate.exists():  # noqa: ASYNC110 - it is a file
                await asyncio.sleep(POLL)


class Count(JobArgs):
    """Does nothing but to be counted; the worker completes it in a batch with others."""

    kind: ClassVar[str] = "chaos.count"


@handles(Count)
async def run_count(args: Count, context: JobContext) -> None:
    del args
    folder, job = os.environ[FOLDER], str(context.job_id)
    write(folder, "start", job)
    write(folder, "end", job)
