"""How connections to PostgreSQL are made: by libpq's rules for URLs, and none waits for ever.

The server ends statements that run too long. That the server itself may be gone without a word (a
host that died, a frozen machine) is dealt with here: TCP keepalives for every connection, and for
the pooled ones a deadline after which they are hung up.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Final, Self, override

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from pydantic import SecretStr

from jangada.config import DatabaseSettings

KEEPALIVE: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""A host that vanished is noticed after 25 seconds; what the URL says goes first."""

LEAST_CONNECT_SECONDS: Final = 2
"""As libpq has it: fewer count as two."""


def arguments(settings: DatabaseSettings, url: SecretStr, application_name: str) -> dict[str, Any]:
    """What `psycopg.connect` is to be given: the URL's own parameters, deadlines and a name."""
    seconds = round(settings.connect_timeout.total_seconds())
    return {
        **KEEPALIVE,
        **conninfo_to_dict(url.get_secret_value()),
        "connect_timeout": max(LEAST_CONNECT_SECONDS, seconds),
        "application_name": application_name,
    }


class Connection(psycopg.AsyncConnection[TupleRow]):
    """A connection that hangs up when the server leaves one exchange unanswered for so long.

    Without a deadline it waits as long as the network says that the server is there.
    """

    deadline: timedelta | None = None
    is_system: bool = False
    """Whether its whole session is in the system's scope (`jangada.scopes.open_system_session`)."""
    manner: str = ""
    """What the planner was told for its whole session (`jangada.jobs.delivery.connection`)."""

    @classmethod
    @override
    async def connect(cls, *arguments: Any, **options: Any) -> Self:
        """As psycopg's; a cancelled attempt hangs up at once.

        The traceback of the cancellation would keep the half-made connection for as long as the
        task is known, and the server waits for it: a minute, and with it a `DROP DATABASE`.
        """
        try:
            return await super().connect(*arguments, **options)
        except asyncio.CancelledError as cancelled:
            raise cancelled.with_traceback(None) from None

    @override
    async def wait[T](
        self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None
    ) -> T:
        if self.deadline is None:
            return await super().wait(gen, interval, timeout)
        # As `hung_up_after`: each exchange comes by here.
        limit = self.deadline.total_seconds()
        timer = asyncio.get_running_loop().call_later(limit, self.hang_up)
        try:
            return await super().wait(gen, interval, timeout)
        finally:
            timer.cancel()

    @contextmanager
    def hung_up_after(self, limit: timedelta) -> Iterator[None]:
        """Hang up when the block takes longer: what waits for the server fails at once.

        To cancel it instead would have psycopg ask the silent server to cancel, and wait for that.
        """
        loop = asyncio.get_running_loop()
        timer = loop.call_later(limit.total_seconds(), self.hang_up)
        try:
            yield
        finally:
            timer.cancel()

    def hang_up(self) -> None:
        """Have whoever uses the connection see its end, now; it has still to be closed."""
        if not self.closed:
            _hang_up(self.pgconn.socket)


def _hang_up(number: int) -> None:
    """Whoever waits on the socket reads its end; it stays open, since the event loop watches it."""
    with suppress(OSError), socket.socket(fileno=os.dup(number)) as connected:
        connected.shutdown(socket.SHUT_RDWR)
