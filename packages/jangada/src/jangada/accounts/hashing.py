"""Password hashing in a bounded pool of its own.

Argon2id is meant to be slow, so a process hashes on a few threads and lets a bounded number wait;
more are shed at once with `HashingBusy`, before they cost anything. An unknown account costs the
same work as a wrong password: a hash with today's parameters that nothing matches.
"""

import asyncio
import secrets
import threading
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from argon2 import PasswordHasher as Argon2
from argon2 import Type
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION

from jangada.accounts.errors import HashingBusy
from jangada.accounts.passwords import prepared
from jangada.auth_settings import HashSettings

_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_RETRY_AFTER: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether the password matched, and whether its hash has outdated parameters."""

    is_match: bool
    is_outdated: bool = False


_MISMATCH: Final = Verification(is_match=False)


def _hash_of_nobody(settings: HashSettings) -> str:
    """A hash that no password has, for it is drawn; to verify against it does today's work."""
    salt, digest = (
        b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (_SALT_BYTES, _HASH_BYTES)
    )
    costs = f"m={settings.memory_kib},t={settings.time_cost},p={settings.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${costs}${salt}${digest}"


class PasswordHasher:
    """Argon2id with the settings' parameters. Open one per process and close it at the end."""

    def __init__(self, settings: HashSettings) -> None:
        self._argon2 = Argon2(
            time_cost=settings.time_cost,
            memory_cost=settings.memory_kib,
            parallelism=settings.parallelism,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
            type=Type.ID,
        )
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="argon2")
        self._room = threading.BoundedSemaphore(settings.workers + settings.queue)
        self._nobody = _hash_of_nobody(settings)

    def close(self) -> None:
        """Let running hashes end and drop the waiting ones."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The encoded hash, which begins with `$argon2id$`. Raises `HashingBusy`."""
        return await self._run(lambda: self._argon2.hash(prepared(password)))

    async def verify(self, encoded: str | None, password: str) -> Verification:
        """Compare a password with a hash; None is an unknown account, and costs as much.

        Raises `HashingBusy`.
        """
        return await self._run(lambda: self._verify(encoded, prepared(password)))

    def _verify(self, encoded: str | None, password: bytes) -> Verification:
        encoded = encoded or self._nobody
        try:
            self._argon2.verify(encoded, password)
        except (VerificationError, InvalidHashError):
            return _MISMATCH
        return Verification(is_match=True, is_outdated=self._argon2.check_needs_rehash(encoded))

    async def _run[T](self, work: Callable[[], T]) -> T:
        if not self._room.acquire(blocking=False):
            raise HashingBusy(
                "Too many sign-ins at once; try again in a moment.", retry_after=_RETRY_AFTER
            )
        future = self._pool.submit(work)
        # Also runs when the request goes away and takes a waiting hash with it.
        future.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(future)
