"""Where a handler runs, and how it is stopped there: a port with two ways so far.

A third one, a process of its own for each attempt, would be able to stop anything. It needs nothing
of the executor but another `Isolation`.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from jangada.jobs.context import JobContext
from jangada.jobs.payloads import Result
from jangada_worker.patience import GRACE

type Call = Callable[[Any, JobContext], Any]


class HandlerExited(Exception):
    """A handler called for the end of the process; only its job ends."""


class Isolation(Protocol):
    """A way to run handlers."""

    def start(self, handler: Call, arguments: Any, context: JobContext) -> asyncio.Future[Result]:  # noqa: ANN401 - each kind has its own
        """Have the handler run; it may have ended already."""
        ...

    async def stop(self, work: asyncio.Future[Result]) -> None:
        """Ask what runs to stop, and give it a moment. Where that is impossible: do nothing."""
        ...


class InLoop:
    """An async handler as a task beside the others: stopped at its next await."""

    def start(self, handler: Call, arguments: Any, context: JobContext) -> asyncio.Future[Result]:  # noqa: ANN401 - as above
        # Eager: one that awaits nothing has ended here, without a turn of the loop.
        loop = asyncio.get_running_loop()
        handling = _contained(handler(arguments, context))
        return asyncio.Task(handling, loop=loop, eager_start=True)

    async def stop(self, work: asyncio.Future[Result]) -> None:
        work.cancel()
        await asyncio.wait({work}, timeout=GRACE.total_seconds())


@dataclass(frozen=True, slots=True)
class InThread:
    """A sync handler in a thread, with the context of its job. Nothing can stop a thread."""

    threads: Executor

    def start(self, handler: Call, arguments: Any, context: JobContext) -> asyncio.Future[Result]:  # noqa: ANN401 - as above
        carried = contextvars.copy_context()
        return asyncio.wrap_future(self.threads.submit(carried.run, handler, arguments, context))

    async def stop(self, work: asyncio.Future[Result]) -> None:
        """It is waited for once its job is dealt with: its slot isn't free before."""


async def _contained(handling: Awaitable[Result]) -> Result:
    """In a task an exit would end the event loop, and every neighbour with it."""
    try:
        return await handling
    except (SystemExit, KeyboardInterrupt) as error:
        raise HandlerExited("The handler asked the process to exit.") from error
