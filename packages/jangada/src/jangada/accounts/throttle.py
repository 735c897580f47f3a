"""Failed sign-ins, counted: guessing slows down, and the owner of an account is not locked out.

Failures are counted for the account, whether it exists or not, for the account from the client's
network, and for the client's address. Over a limit nobody gets in until the window ends, but for
one: an account that is attacked from elsewhere stays open to the addresses that it signed in from
before, where only the failures from there count. Who fails there is told what everybody is, so that
the answers say neither whether there is an account nor where its owner is. Sessions that are open
are not touched.

Counts live in Valkey, and in PostgreSQL while Valkey takes no writes. Keys are HMACs: neither store
learns an e-mail address.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv6Address, ip_address
from typing import Final
from weakref import WeakValueDictionary

from redis.exceptions import NoPermissionError, RedisError
from sqlalchemy import text

from jangada.accounts.errors import HashingBusy, SignInThrottled
from jangada.runtime import Runtime, derived_key
from jangada.telemetry import get_logger

log = get_logger(__name__)

_PURPOSE: Final = "accounts: throttle"
_PREFIX: Final = "jangada:sign-in:"
_IPV6_NETWORK: Final = 64

_RETRY_AFTER: Final = timedelta(seconds=1)
MOST_IN_TURN: Final = 24
"""Attempts on one count that a process has under way or waiting; more are shed."""


@dataclass(frozen=True, slots=True)
class Count:
    """Something whose failures are counted, and how many are borne in a window."""

    key: str
    limit: int


type Spent = Mapping[Count, timedelta]


def refuse(spent: Spent) -> None:
    """Raise `SignInThrottled` if any count is used up."""
    if spent:
        raise SignInThrottled(
            "Too many failed attempts; wait before the next.", retry_after=max(spent.values())
        )


@dataclass(slots=True, weakref_slot=True)
class _Turns:
    """The attempts on one count, of which one is made at a time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    attempts: int = 0


class Throttle:
    """Counts failures of one process's sign-ins where all processes see them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings.auth.throttle
        self._key = derived_key(runtime.settings, _PURPOSE)
        self._has_warned = False
        self._turns: WeakValueDictionary[str, _Turns] = WeakValueDictionary()

    def account(self, email_key: str) -> Count:
        """The count of an account, wherever the failures come from."""
        return Count(self._hidden(f"account:{email_key}"), self._settings.account_failures)

    def account_from(self, email_key: str, address: str | None) -> Count:
        """The count of an account's failures from one network."""
        subject = f"account:{email_key}:{network(address)}"
        return Count(self._hidden(subject), self._settings.account_failures)

    def address(self, address: str | None, *, action: str = "sign-in") -> Count:
        """The count of a client address, or of the network that one IPv6 client has to itself."""
        return Count(
            self._hidden(f"address:{action}:{network(address)}"), self._settings.address_failures
        )

    def _hidden(self, subject: str) -> str:
        return _PREFIX + hmac.digest(self._key, subject.encode(), "sha256").hex()

    @asynccontextmanager
    async def attempt(self, *counts: Count) -> AsyncIterator[None]:
        """One attempt, in its turn.

        Raises `SignInThrottled` when a count is used up, and `HashingBusy`.
        """
        async with self.turn(counts[0]):
            await self.refuse_spent(*counts)
            yield

    @asynccontextmanager
    async def turn(self, count: Count) -> AsyncIterator[None]:
        """A process makes attempts on a count one after another.

        So a burst cannot slip through between the look and the count. Nor does one keep everybody
        waiting: raises `HashingBusy` where too many wait already.
        """
        turns = self._turns.setdefault(count.key, _Turns())
        if turns.attempts >= MOST_IN_TURN:
            raise HashingBusy(
                "Too many attempts at once; try again in a moment.", retry_after=_RETRY_AFTER
            )
        turns.attempts += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.attempts -= 1

    async def count(self, *counts: Count) -> None:
        """Count a failure."""
        keys = [count.key for count in counts]
        try:
            await self._count_in_valkey(keys)
        except (RedisError, OSError) as error:
            self._warn_once(error)
            await self._count_in_postgres(keys)

    async def refuse_spent(self, *counts: Count) -> None:
        """Raise `SignInThrottled` when a count is used up."""
        refuse(await self.spent(*counts))

    async def spent(self, *counts: Count) -> Spent:
        """Those of the counts that are used up, each with what is left of its window.

        In either store: any process may have counted in PostgreSQL until a moment ago. What Valkey
        knows of isn't asked of it, so that who goes on guessing costs it nothing.
        """
        spent: Spent = {}
        try:
            spent = await self._spent_in_valkey(counts)
        except (RedisError, OSError) as error:
            self._warn_once(error)
        left = [count for count in counts if count not in spent]
        return {**spent, **await self._spent_in_postgres(left)} if left else spent

    def _warn_once(self, error: Exception) -> None:
        """Of what nobody else notices: that Valkey is absent is told by the API's readiness."""
        if isinstance(error, NoPermissionError) and not self._has_warned:
            self._has_warned = True
            log.warning(
                "failed sign-ins are counted in PostgreSQL: Valkey's user may not run the commands "
                "that docs/queue-protocol.md names",
                error=str(error),
            )

    async def _spent_in_valkey(self, counts: Sequence[Count]) -> Spent:
        async with self._runtime.valkey.pipeline(transaction=False) as pipe:
            for count in counts:
                pipe.get(count.key)
                pipe.pttl(count.key)
            answers = await pipe.execute()
        found = zip(counts, answers[::2], answers[1::2], strict=True)
        return {
            count: timedelta(milliseconds=max(left, 1))
            for count, failures, left in found
            if int(failures or 0) >= count.limit
        }

    async def _count_in_valkey(self, keys: Sequence[str]) -> None:
        window = int(self._settings.window.total_seconds() * 1000)
        async with self._runtime.valkey.pipeline(transaction=True) as pipe:
            for key in keys:
                # NX: the window begins with its first failure and no failure prolongs it.
                pipe.incr(key)
                pipe.pexpire(key, window, nx=True)
            await pipe.execute()

    async def _spent_in_postgres(self, counts: Sequence[Count]) -> Spent:
        async with self._runtime.database.system_transaction("sign-in throttle") as session:
            rows = await session.execute(
                _WINDOWS, {"keys": [c.key for c in counts], "limits": [c.limit for c in counts]}
            )
            left: dict[str, timedelta] = dict(rows.all())
        return {count: left[count.key] for count in counts if count.key in left}

    async def _count_in_postgres(self, keys: Sequence[str]) -> None:
        async with self._runtime.database.system_transaction("sign-in throttle") as session:
            # Sorted, so that two failures with common keys cannot deadlock.
            parameters = {"keys": sorted(keys), "window": self._settings.window}
            await session.execute(_COUNT, parameters)


_WINDOWS: Final = text("""
    SELECT key, window_ends_at - clock_timestamp()
    FROM unnest(CAST(:keys AS text[]), CAST(:limits AS integer[])) AS c (key, most)
    JOIN sign_in_failures USING (key)
    WHERE failures >= most AND window_ends_at > clock_timestamp()
""")

_COUNT: Final = text("""
    INSERT INTO sign_in_failures AS f (key, failures, window_ends_at)
    SELECT key, 1, clock_timestamp() + CAST(:window AS interval)
    FROM unnest(CAST(:keys AS text[])) AS key
    ON CONFLICT (key) DO UPDATE SET
        failures = CASE WHEN f.window_ends_at > clock_timestamp() THEN f.failures + 1 ELSE 1 END,
        window_ends_at = CASE WHEN f.window_ends_at > clock_timestamp() THEN f.window_ends_at
            ELSE EXCLUDED.window_ends_at END
""")


def network(address: str | None) -> str:
    """What one client can be told by: its IPv4 address, or its IPv6 /64."""
    if address is None:
        return "unknown"
    parsed = ip_address(address)
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(int(parsed) >> (128 - _IPV6_NETWORK))
