"""What sign-in needs for as long as a process serves: opened once, passed to the verbs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from jangada.accounts.hashing import PasswordHasher
from jangada.accounts.keyring import Keyring
from jangada.accounts.passwords import PasswordPolicy
from jangada.accounts.revocations import Revocations
from jangada.accounts.service import housekeeping
from jangada.accounts.throttle import Throttle
from jangada.runtime import Runtime
from jangada.telemetry import get_logger

log = get_logger(__name__)

HOUSEKEEPING_EVERY: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Accounts:
    """The parts that hold state: threads that hash, keys, the feed of ended sessions, counts."""

    runtime: Runtime
    policy: PasswordPolicy
    hasher: PasswordHasher
    keyring: Keyring
    revocations: Revocations
    throttle: Throttle


@asynccontextmanager
async def open_accounts(runtime: Runtime) -> AsyncIterator[Accounts]:
    """Open sign-in for a process. Needs no server to be up: each use says what is absent."""
    settings = runtime.settings.auth
    accounts = Accounts(
        runtime=runtime,
        policy=PasswordPolicy(settings.password),
        hasher=PasswordHasher(settings.hash),
        keyring=Keyring(runtime),
        revocations=Revocations(runtime),
        throttle=Throttle(runtime),
    )
    tasks = [
        asyncio.create_task(accounts.revocations.follow(), name="accounts: revocations"),
        asyncio.create_task(_keep_house(runtime), name="accounts: housekeeping"),
    ]
    try:
        yield accounts
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        accounts.hasher.close()


async def _keep_house(runtime: Runtime) -> None:
    while True:
        await asyncio.sleep(HOUSEKEEPING_EVERY.total_seconds())
        try:
            await housekeeping.prune(runtime)
        except Exception as error:  # noqa: BLE001 - nothing depends on it; the next round will do
            log.debug("housekeeping_failed", error=type(error).__name__)
