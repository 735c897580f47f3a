"""Which handler runs which kind of job: a typed pair of arguments and function."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from jangada.jobs.context import JobContext
from jangada.jobs.errors import UnknownJobKind
from jangada.jobs.payloads import Result
from jangada.jobs.schemas import JobArgs

type Handler[A: JobArgs] = Callable[[A, JobContext], Awaitable[Result] | Result]

type Backoff = Callable[[int, BaseException], timedelta | None]
"""The wait after so many failures, of which this error is the last; None is the usual one."""

DEFAULT_TIMEOUT: Final = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Registration:
    """A kind of job with its handler. A sync handler runs in a thread."""

    args: type[JobArgs]
    handler: Callable[[Any, JobContext], Any]
    timeout: timedelta
    backoff: Backoff | None = None

    @property
    def kind(self) -> str:
        return self.args.kind

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.handler)


_registered: Final[dict[str, Registration]] = {}


def handles[A: JobArgs](
    args: type[A], *, timeout: timedelta = DEFAULT_TIMEOUT, backoff: Backoff | None = None
) -> Callable[[Handler[A]], Handler[A]]:
    """Register the decorated function as the handler of these arguments.

    `timeout` bounds one attempt; a job that exceeds it is tried again. `backoff` says when, instead
    of after a random part of 2, 4, 8 … seconds, at most an hour. Registering another function for
    the same kind is an error at import: kinds are unique over the platform.
    """

    def register(handler: Handler[A]) -> Handler[A]:
        known = _registered.get(args.kind)
        if known is not None and known.handler is not handler:
            raise ValueError(f"{args.kind} is handled by {known.handler.__qualname__} already")
        _registered[args.kind] = Registration(args, handler, timeout, backoff)
        return handler

    return register


def find(kind: str) -> Registration | None:
    return _registered.get(kind)


def get(kind: str) -> Registration:
    """The registration of a kind; raises `UnknownJobKind`."""
    registration = _registered.get(kind)
    if registration is None:
        raise UnknownJobKind(f"No handler for jobs of kind {kind} is registered in this worker.")
    return registration


def kinds() -> frozenset[str]:
    return frozenset(_registered)
