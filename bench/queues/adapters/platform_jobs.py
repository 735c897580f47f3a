"""The handlers of ours with PostgreSQL: what `jangada worker` loads by its entry point."""

import asyncio
from typing import ClassVar

from jangada.jobs.context import JobContext
from jangada.jobs.registry import handles
from jangada.jobs.schemas import JobArgs
from queues.adapter import HOLD, NAP
from queues.ledger import record

INSERT = "INSERT INTO effects (job) VALUES (%s)"


class Numbered(JobArgs):
    """A job with its number."""

    index: int


class Noop(Numbered):
    """Does nothing; has no session."""

    kind: ClassVar[str] = "bench.noop"


class Nap(Numbered):
    """Sleeps 100 ms."""

    kind: ClassVar[str] = "bench.nap"


class Hold(Numbered):
    """Runs until it is killed."""

    kind: ClassVar[str] = "bench.hold"


class Insert(Numbered):
    """Inserts one row, in one transaction with its completion."""

    kind: ClassVar[str] = "bench.insert"


KINDS: dict[str, type[Numbered]] = {"noop": Noop, "nap": Nap, "hold": Hold, "insert": Insert}


@handles(Noop)
async def noop(args: Noop, _: JobContext) -> None:
    record(args.index)


@handles(Nap)
async def nap(args: Nap, _: JobContext) -> None:
    await asyncio.sleep(NAP)
    record(args.index)


@handles(Hold)
async def hold(args: Hold, _: JobContext) -> None:
    record(args.index)
    await asyncio.sleep(HOLD)


@handles(Insert)
async def insert(args: Insert, context: JobContext) -> None:
    async with context.connection() as connection:
        await connection.execute(INSERT, [args.index])
        await context.complete_on(connection)
    record(args.index)
