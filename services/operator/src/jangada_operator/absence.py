"""Why a broker doesn't answer, in words that may be shown: a URL holds a password."""

import os
import socket
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import AuthenticationError
from redis.exceptions import TimeoutError as RedisTimeoutError

HIDDEN: Final = "…"


def place_of(url: str) -> str:
    """Host and port, or a socket's path. Raises `ValueError` where the URL is none."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    place = parts.netloc.rpartition("@")[2]
    # Without a host what looks like a port may be the beginning of a password.
    return "localhost" if not place or place.startswith(":") else place


def why_unreadable(error: ValueError) -> str:
    """What is wrong with a URL that can't be read."""
    text = str(error)
    if text.startswith("Port"):  # It quotes what it took for a port: mostly a part of the password.
        return "its port is no number; write / ? # and @ in a password as %2F %3F %23 and %40"
    return text.removesuffix(".")


def why_absent(error: BaseException, url: str) -> str:
    """A sentence about a server that didn't answer."""
    return f"{place_of(url)} doesn't answer: {_cause_of(error, url)}."


def _cause_of(error: BaseException, url: str) -> str:
    chain = list(_chain(error))
    if any(isinstance(each, AuthenticationError) for each in chain):
        return "it refuses the user or the password"
    for each in chain:
        if isinstance(each, socket.gaierror):
            return "its name isn't known"
        if isinstance(each, OSError) and each.errno:
            return os.strerror(each.errno).lower()
    if any(isinstance(each, MasterNotFoundError) for each in chain):
        return "no sentinel answers, or none knows the master"
    if any(isinstance(each, (TimeoutError, RedisTimeoutError)) for each in chain):
        return "nothing came in time"
    return _scrubbed(str(error.__cause__ or error).removesuffix("."), url)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _scrubbed(text: str, url: str) -> str:
    parts = urlsplit(url)
    written = [parts.password or "", *parse_qs(parts.query).get("password", ())]
    for secret in {
        form for each in written for form in (each, unquote(each), quote(each, safe=""))
    }:
        text = text.replace(secret, HIDDEN) if secret else text
    return text
