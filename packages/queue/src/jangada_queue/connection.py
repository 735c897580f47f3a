"""Commands with a deadline, and one error for all the ways in which a server is absent."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jangada_queue.errors import QueueRefused, QueueUnavailable
from jangada_queue.scripts import Script

type Argument = str | bytes | int | float

SCHEMES: Final = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://")

_ABSENT: Final = (
    MasterNotFoundError,
    OSError,
    RedisConnectionError,
    RedisTimeoutError,
    TimeoutError,
)

_FOR_NOW: Final = frozenset(
    {
        *("BUSY", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY"),
        *("TRYAGAIN", "UNBLOCKED", "UNKILLABLE"),
    }
)
"""How a server begins its answer that is there and takes no command for now, or none that writes:
its memory or disk is full, it lacks replicas or is or became one, it runs a script.
"""
_BEFORE_ANSWER: Final = "caused error: "
"""redis-py puts a pipeline's command and arguments in front, and makes a tuple of the rest."""
_BEFORE_ARGUMENTS: Final = ", with args beginning with"
"""A server repeats those of a command that it doesn't know."""
MOST_SAID: Final = 200
"""Characters of a server's answer that are told."""


def open_client(
    url: str, options: Mapping[str, Any] | None = None, *, connections: int = 20
) -> Redis:
    """A client that never retries by itself: what is sent twice would be done twice.

    Besides `redis://`, `rediss://` and `unix://` it takes `redis+sentinel://` and
    `rediss+sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]/SERVICE[/DATABASE]`: the sentinels say
    where the service's primary is. `options` are redis-py's for a connection; those that begin with
    `sentinel_` are for the sentinels' own. At most `connections` are open; more callers wait.
    """
    defaults = {"socket_connect_timeout": 2.0, "socket_timeout": 5.0, "health_check_interval": 0}
    chosen = {**defaults, **(options or {}), "retry": Retry(NoBackoff(), 0)}
    if urlsplit(url).scheme.endswith("+sentinel"):
        return _through_sentinels(url, connections, chosen)
    pool = BlockingConnectionPool.from_url(url, max_connections=connections, **chosen)
    return Redis.from_pool(pool)


def check_connection(url: str, options: Mapping[str, Any] | None = None) -> None:
    """Refuse what no connection could be made with, without making one.

    Raises `ValueError` for a URL and `TypeError` for an option: what redis-py would say when the
    first connection is needed.
    """
    if not url.startswith(SCHEMES):
        raise ValueError(f"the URL must begin with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
    try:
        open_client(url, options).connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except TypeError as error:
        raise TypeError(f"redis-py's connection refuses an argument: {error}") from error


def _through_sentinels(url: str, connections: int, options: dict[str, Any]) -> Redis:
    parts = urlsplit(url)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("a sentinel URL ends with the name of the service, /SERVICE")
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    sentinels = [_host_and_port(host) for host in hosts.split(",")]
    own = {name: options.pop(name) for name in list(options) if name.startswith("sentinel_")}
    if parts.scheme.startswith("rediss"):
        options["ssl"] = True
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        sentinels,
        sentinel_kwargs={
            **{name: options[name] for name in ("socket_connect_timeout", "socket_timeout")},
            **{name.removeprefix("sentinel_"): value for name, value in own.items()},
        },
        username=unquote(username) or None,
        password=unquote(password) or None,
        db=int(database or 0),
        max_connections=connections,
        **options,
    )
    client: Redis = sentinel.master_for(service)
    return client


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return (host, int(port)) if host else (port, 26379)


@asynccontextmanager
async def within(deadline: timedelta) -> AsyncIterator[None]:
    """Raise `QueueUnavailable` when the block takes longer, or the server can't or won't do it.

    Also where only somebody can mend that (rights, a foreign key in our place, a mistake of ours):
    whatever Valkey answers, jobs that run go on, and what needs it is tried again.
    """
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            yield
    except _ABSENT as error:
        raise QueueUnavailable(f"Valkey is absent ({type(error).__name__}).") from error
    except ResponseError as error:
        raise _refusal(error) from error


def _refusal(error: ResponseError) -> QueueUnavailable:
    """What the server says, in its own word: redis-py takes off those that it has an error for."""
    said = str(error).rpartition(_BEFORE_ANSWER)[2].strip("(',)").partition(_BEFORE_ARGUMENTS)[0]
    word = error.status_code if error.status_code in _FOR_NOW else said.partition(" ")[0]
    if word in _FOR_NOW:
        return QueueUnavailable(f"Valkey refuses commands for now ({word}).")
    return QueueRefused(f"Valkey refuses a command: {said[:MOST_SAID]}")


def as_text(value: object) -> str:
    """Ours is UTF-8; somebody else's bytes are no fault of who reads them."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


async def command(redis: Redis, *parts: Argument) -> Any:  # noqa: ANN401 - as the server answers
    return await redis.execute_command(*parts)  # type: ignore[no-untyped-call]


async def run(
    redis: Redis,
    script: Script,
    base: str,
    arguments: Iterable[Argument] = (),
) -> Any:  # noqa: ANN401 - as the script answers
    """Run a script on a queue; a server that doesn't know it (any more) is sent the text."""
    rest = (1, base, *arguments)
    try:
        return await command(redis, "EVALSHA", script.sha, *rest)
    except NoScriptError:
        return await command(redis, "EVAL", script.text, *rest)


async def run_each(
    redis: Redis, script: Script, bases: Sequence[str], arguments: Sequence[Argument] = ()
) -> list[Any]:
    """Run a script with the same arguments on each of the queues, in one round trip."""
    if not bases:
        return []
    try:
        return await _pipeline(redis, ("EVALSHA", script.sha), bases, arguments)
    except NoScriptError:
        return await _pipeline(redis, ("EVAL", script.text), bases, arguments)


async def _pipeline(
    redis: Redis, call: tuple[str, str], bases: Iterable[str], arguments: Iterable[Argument]
) -> list[Any]:
    async with redis.pipeline(transaction=False) as pipeline:
        for base in bases:
            pipeline.execute_command(*call, 1, base, *arguments)
        return await pipeline.execute()
