"""The composition root: everything that a process shares, opened once and passed down."""

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from jangada.commits import Notice
from jangada.config import Settings, ValkeySettings
from jangada.crud import CursorSigner
from jangada.db import Database, utc_now
from jangada.environment import InvalidSettings
from jangada.errors import FieldError
from jangada.mail import Mailer, open_mailer
from jangada.telemetry import get_logger
from jangada_queue.client import QueueClient
from jangada_queue.messages import Offer
from jangada_queue.signals import tell

log = get_logger(__name__)


class Clock(Protocol):
    """Where "now" comes from: tests set it."""

    def now(self) -> datetime:
        """The present as an aware UTC datetime."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return utc_now()


@dataclass(frozen=True, slots=True)
class Runtime:
    """What services and handlers are given. Opened by `open_runtime`, closed with the process."""

    settings: Settings
    database: Database
    valkey: Redis
    queue: QueueClient
    clock: Clock
    cursors: CursorSigner
    mailer: Mailer
    uploads: Counter[UUID]
    """How many this process receives at the moment, by tenant."""


def master_key(settings: Settings) -> bytes:
    """The installation's master key. Raises `InvalidSettings` where none is set."""
    secret = settings.auth.master_key
    if secret is None:
        detail = "is not set; make one with `jangada gen-secret` and keep it secret"
        key = "JANGADA_AUTH__MASTER_KEY"
        raise InvalidSettings(
            f"{key}: {detail}", errors=[FieldError(key, "settings.invalid", detail)]
        )
    return secret.get_secret_value().encode()


def derived_key(settings: Settings, purpose: str) -> bytes:
    """A 32-byte key for one purpose, so that no two uses share a key."""
    return hmac.digest(master_key(settings), b"jangada:" + purpose.encode(), hashlib.sha256)


def open_valkey(settings: ValkeySettings) -> Redis:
    """A client whose every command has a deadline and that never retries by itself."""
    client: Redis = Redis.from_url(
        settings.url.get_secret_value(),
        socket_connect_timeout=settings.connect_timeout.total_seconds(),
        socket_timeout=settings.command_timeout.total_seconds(),
        retry=Retry(NoBackoff(), 0),
    )
    return client


class _FastPath:
    """Tells Valkey what a transaction of this process committed.

    A queue whose notice was lost is woken with each later one, whatever that is about, until one
    has arrived: what is committed after the loss isn't offered to a worker ahead of that job.
    """

    def __init__(self, queue: QueueClient) -> None:
        self._queue = queue
        self._losses: Counter[str] = Counter()

    async def tell(self, notices: frozenset[Notice]) -> None:
        """Wake a dispatcher for each queue; where one job came alone, offer it to a worker."""
        offered: dict[str, list[Offer]] = defaultdict(list)
        for each in notices:
            if isinstance(each.about, Offer):
                offered[each.subject].append(each.about)
        losses = self._losses.copy()
        told = {notice.subject for notice in notices if notice.topic == "wake"}
        woken = told | losses.keys()
        woken |= {name for name, offers in offered.items() if len(offers) > 1}
        try:
            await tell(
                self._queue,
                wake=woken,
                cancel=[notice.subject for notice in notices if notice.topic == "cancel"],
                offers={name: offers[0] for name, offers in offered.items() if name not in woken},
            )
        except BaseException:
            self._losses.update(told | offered.keys())
            raise
        for name, count in losses.items():
            if self._losses[name] == count:
                del self._losses[name]


@asynccontextmanager
async def open_runtime(
    settings: Settings, *, clock: Clock | None = None, application_name: str = "jangada"
) -> AsyncIterator[Runtime]:
    """The runtime of one process. Nothing is connected to yet: each part may be absent."""
    cursors = CursorSigner(derived_key(settings, "cursor"))
    clock = clock or SystemClock()
    mailer = open_mailer(settings.mail, clock.now)
    async with AsyncExitStack() as stack:
        database = Database(settings.database, application_name=application_name)
        stack.push_async_callback(database.close)
        valkey = open_valkey(settings.valkey)
        stack.push_async_callback(valkey.aclose)
        queue = QueueClient(valkey, deadline=settings.valkey.command_timeout)
        database.notify = _FastPath(queue).tell
        yield Runtime(settings, database, valkey, queue, clock, cursors, mailer, Counter())
