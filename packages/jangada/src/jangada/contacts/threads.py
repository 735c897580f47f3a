"""A thread beside the event loop, for work that computes and reads from the loop as it goes."""

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol


class Run(Protocol):
    """Runs a function in the thread, after those that were given before."""

    def __call__[**P, T](
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """The function's result to come."""


@asynccontextmanager
async def own_thread(name: str) -> AsyncIterator[Run]:
    """A thread for the length of the block, which ends when the thread has nothing more to do."""
    pool = ThreadPoolExecutor(1, thread_name_prefix=name)
    loop = asyncio.get_running_loop()

    def run[**P, T](function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return loop.run_in_executor(pool, partial(function, *args, **kwargs))

    try:
        yield run
    finally:
        # The thread may be waiting for this loop, so the loop must go on until the thread is done.
        await asyncio.shield(loop.run_in_executor(pool, lambda: None))
        pool.shutdown(wait=False)


async def ahead[T](run: Run, items: Iterator[T]) -> AsyncGenerator[T]:
    """The items, each made in the thread while the one before is being used."""
    pending = run(next, items, None)
    try:
        while (item := await pending) is not None:
            pending = run(next, items, None)
            yield item
    finally:
        pending.add_done_callback(_forget)


def _forget[T](work: Future[T]) -> None:
    """Nobody waits any more: an error of the work has no one to go to."""
    if not work.cancelled():
        work.exception()


def in_thread[T](items: AsyncIterator[T], loop: AbstractEventLoop) -> Iterator[T]:
    """What the loop yields, for use in a thread: each item is waited for."""
    while (item := asyncio.run_coroutine_threadsafe(_next(items), loop).result()) is not None:
        yield item


async def _next[T](items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)
