"""Commands with a deadline, and one error for all the ways in which a server is absent."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jangada_queue.errors import QueueUnavailable
from jangada_queue.scripts import Script

type Argument = str | bytes | int | float

_ABSENT: Final = (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    OSError,
    ReadOnlyError,
    RedisConnectionError,
    RedisTimeoutError,
    TimeoutError,
    TryAgainError,
)


@asynccontextmanager
async def within(deadline: timedelta) -> AsyncIterator[None]:
    """Raise `QueueUnavailable` when the block takes longer, or the server isn't able to answer."""
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            yield
    except _ABSENT as error:
        raise QueueUnavailable(f"Valkey is absent ({type(error).__name__}).") from error


def as_text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


async def command(redis: Redis, *parts: Argument) -> Any:  # noqa: ANN401 - as the server answers
    return await redis.execute_command(*parts)  # type: ignore[no-untyped-call]


async def run(
    redis: Redis,
    script: Script,
    keys: Sequence[str],
    arguments: Iterable[Argument] = (),
) -> Any:  # noqa: ANN401 - as the script answers
    """Run a script; a server that doesn't know it (yet, or after a restart) is sent the text."""
    rest = (len(keys), *keys, *arguments)
    try:
        return await command(redis, "EVALSHA", script.sha, *rest)
    except NoScriptError:
        return await command(redis, "EVAL", script.text, *rest)


async def run_each(redis: Redis, script: Script, calls: Sequence[Sequence[str]]) -> list[Any]:
    """Run a script that takes only keys once for each of `calls`, in one round trip."""
    if not calls:
        return []
    try:
        return await _pipeline(redis, "EVALSHA", script.sha, calls)
    except NoScriptError:
        return await _pipeline(redis, "EVAL", script.text, calls)


async def _pipeline(
    redis: Redis, command: str, script: str, calls: Sequence[Sequence[str]]
) -> list[Any]:
    async with redis.pipeline(transaction=False) as pipeline:
        for keys in calls:
            pipeline.execute_command(command, script, len(keys), *keys)
        return await pipeline.execute()
