"""Waiting that ends early, and retrying that neither gives up nor rushes."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Final

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0


class Stop:
    """Somebody asks for the end, in order; asked again, in a hurry."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def ask(self) -> None:
        if self.asked.is_set():
            self.hurried.set()
        self.asked.set()


class Pauses:
    """Pauses that double while something stays absent: `reset` when it is back."""

    def __init__(self, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    @property
    def is_first(self) -> bool:
        """Whether nothing has failed since the last reset: the time to say so, once."""
        return self._next == self._first

    def reset(self) -> None:
        self._next = self._first

    def take(self) -> float:
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return pause


async def unless[T](stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The work's result, or None when the stop came first: then the work is cancelled."""
    if stop.is_set():
        work.close()
        return None
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await _end(stopping)
        await _end(working)


async def _end(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Return after so many seconds, or when the stop comes."""
    await wait_at_most(stop.wait(), seconds)


async def wait_at_most(event: Awaitable[object], seconds: float) -> bool:
    """Whether it happened in time."""
    try:
        async with asyncio.timeout(seconds):
            await event
    except TimeoutError:
        return False
    return True
