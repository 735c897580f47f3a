"""The signing keys of the platform, as one process sees them.

Every process reads the same rows. The first key, and the first of an algorithm, is made under an
advisory lock, so that any number of processes that start at once publish one. A new key is
published before it signs, and an old one stays until the last token that it signed has expired, so
a rotation refuses nobody.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy import delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.accounts.models import SigningKey
from jangada.accounts.signing_keys import (
    Algorithm,
    PrivateKey,
    PublicKey,
    generate,
    load_public,
    unseal,
)
from jangada.db import new_id
from jangada.errors import Unavailable
from jangada.runtime import Runtime, derived_key

PUBLISH_AHEAD: Final = timedelta(minutes=10)
"""How long a new key is published before it signs: longer than anybody caches the key set."""

AT_ONCE: Final = timedelta(0)

SLACK: Final = timedelta(minutes=5)
"""How much longer than its last token an old key stays: processes may notice a rotation late."""

RELOAD_AFTER: Final = timedelta(seconds=30)
LOOK_UP_AT_MOST_EVERY: Final = timedelta(seconds=1)

_LOCK_KEY: Final = 0x6A676B79
_PURPOSE: Final = "accounts: sealed signing keys"


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys that are published, newest first, and when this process read them."""

    public: dict[str, PublicKey]
    private: Sequence[tuple[datetime, PrivateKey]]
    read_at: float = field(default_factory=time.monotonic)

    def is_older_than(self, age: timedelta) -> bool:
        return time.monotonic() - self.read_at > age.total_seconds()

    def signer(self, now: datetime) -> PrivateKey:
        """The newest key whose time to sign has come; `read_keys` saw to it that there is one."""
        return next(key for signs_from, key in self.private if signs_from <= now)


class Keyring:
    """Keys to sign and verify with. Reads the database rarely, and survives its absence."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._keys: KeySet | None = None
        self._reading = asyncio.Lock()

    async def signer(self) -> PrivateKey:
        """The key that signs now. Raises `Unavailable`, or `MasterKeyMismatch`."""
        return (await self._keys_younger_than(RELOAD_AFTER)).signer(self._runtime.clock.now())

    async def find(self, kid: str) -> PublicKey | None:
        """The published key of this id. An unknown id is looked up, at most once a second."""
        keys = await self._keys_younger_than(RELOAD_AFTER)
        if kid not in keys.public:
            keys = await self._keys_younger_than(LOOK_UP_AT_MOST_EVERY)
        return keys.public.get(kid)

    async def key_set(self) -> dict[str, Any]:
        """What `/.well-known/jwks.json` says."""
        keys = await self._keys_younger_than(RELOAD_AFTER)
        return {"keys": [key.jwk() for key in keys.public.values()]}

    async def _keys_younger_than(self, age: timedelta) -> KeySet:
        """The keys, read anew once for all who wait; as they were while PostgreSQL is absent."""
        keys = self._keys
        if keys is None:
            keys = self._keys = await read_keys(self._runtime)
        if not keys.is_older_than(age):
            return keys
        async with self._reading:
            if self._keys is keys:
                keys = self._keys = await self._read_again(keys)
        return self._keys or keys

    async def _read_again(self, keys: KeySet) -> KeySet:
        try:
            return await read_keys(self._runtime)
        except Unavailable:
            # As if just read, so that not every request waits for a database that is away.
            return replace(keys, read_at=time.monotonic())


async def read_keys(runtime: Runtime) -> KeySet:
    """All published keys, with at least one that can sign now."""
    now = runtime.clock.now()
    async with runtime.database.system_transaction("signing keys") as session:
        rows = await _published(session, now)
        if not _has_signer(rows, runtime, now):
            await _lock(session)
            rows = await _published(session, now)
            if not _has_signer(rows, runtime, now):
                rows = [_add(session, runtime, signs_from=now), *rows]
    return _opened(rows, runtime)


async def rotate(
    runtime: Runtime, *, publish_ahead: timedelta = PUBLISH_AHEAD, discard_old: bool = False
) -> SigningKey:
    """Publish a new key that signs after `publish_ahead`; the old ones go when their tokens have.

    With `discard_old` the new key signs at once and the old ones are gone: every access token that
    they signed is refused within seconds, and clients refresh. For a key that leaked, or a master
    key that was replaced.
    """
    now = runtime.clock.now()
    async with runtime.database.system_transaction("signing keys") as session:
        await _lock(session)
        rows = await _published(session, now)
        is_urgent = discard_old or not _has_signer(rows, runtime, now)
        key = _add(session, runtime, signs_from=now if is_urgent else now + publish_ahead)
        last_token = key.signs_from + runtime.settings.auth.access_token_lifetime + SLACK
        for old in rows:
            old.expires_at = now if discard_old else min(old.expires_at or last_token, last_token)
        await session.flush()
        await session.execute(delete(SigningKey).where(SigningKey.expires_at <= now))
    return key


async def list_keys(runtime: Runtime) -> list[SigningKey]:
    """The published keys, newest first."""
    async with runtime.database.system_transaction("signing keys") as session:
        return await _published(session, runtime.clock.now())


async def _published(session: AsyncSession, now: datetime) -> list[SigningKey]:
    is_published = or_(SigningKey.expires_at.is_(None), SigningKey.expires_at > now)
    newest_first = (SigningKey.signs_from.desc(), SigningKey.id.desc())
    return list(
        await session.scalars(select(SigningKey).where(is_published).order_by(*newest_first))
    )


async def _lock(session: AsyncSession) -> None:
    await session.execute(select(func.pg_advisory_xact_lock(_LOCK_KEY)))


def _can_sign(row: SigningKey, runtime: Runtime) -> bool:
    return row.algorithm == runtime.settings.auth.algorithm


def _has_signer(rows: Sequence[SigningKey], runtime: Runtime, now: datetime) -> bool:
    return any(_can_sign(row, runtime) and row.signs_from <= now for row in rows)


def _add(session: AsyncSession, runtime: Runtime, *, signs_from: datetime) -> SigningKey:
    key_id = new_id()
    key = generate(key_id, runtime.settings.auth.algorithm)
    row = SigningKey(
        id=key_id,
        algorithm=key.algorithm,
        public_key=key.public().der(),
        sealed_private_key=key.sealed(derived_key(runtime.settings, _PURPOSE)),
        signs_from=signs_from,
    )
    session.add(row)
    return row


def _opened(rows: Sequence[SigningKey], runtime: Runtime) -> KeySet:
    public = [load_public(row.id, _algorithm(row), row.public_key) for row in rows]
    sealing_key = derived_key(runtime.settings, _PURPOSE)
    private = [
        (row.signs_from, unseal(sealing_key, row.id, _algorithm(row), row.sealed_private_key))
        for row in rows
        if _can_sign(row, runtime)
    ]
    return KeySet({key.kid: key for key in public}, private)


def _algorithm(row: SigningKey) -> Algorithm:
    return cast(Algorithm, row.algorithm)
