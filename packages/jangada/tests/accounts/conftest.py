"""People who sign in, in processes that share the servers and the test's clock."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from jangada.accounts.runtime import Accounts, open_accounts
from jangada.accounts.schemas import Client, Credentials, Principal, Registration, Tokens
from jangada.accounts.service.registration import register
from jangada.accounts.service.sign_in import authenticate, login
from jangada.config import Settings, ValkeySettings
from jangada.testing import FrozenClock, frozen_runtime

PASSWORD = "the tide goes out at six"
HOME = "203.0.113.7"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person who is signed in."""

    email: str
    tokens: Tokens
    who: Principal


@pytest.fixture
def password() -> str:
    return PASSWORD


@pytest.fixture
def open_process(
    settings: Settings, clock: FrozenClock
) -> Callable[..., AbstractAsyncContextManager[Accounts]]:
    """Accounts as one more process opens them, perhaps with other settings."""

    @asynccontextmanager
    async def open_one(other: Settings = settings) -> AsyncIterator[Accounts]:
        async with frozen_runtime(other, clock) as runtime, open_accounts(runtime) as accounts:
            yield accounts

    return open_one


@pytest.fixture
async def accounts(
    open_process: Callable[[], AbstractAsyncContextManager[Accounts]],
) -> AsyncIterator[Accounts]:
    async with open_process() as accounts:
        yield accounts


@pytest.fixture
def without_valkey(settings: Settings) -> Settings:
    """The same database, and no Valkey at all."""
    nowhere = ValkeySettings(url=SecretStr("unix:///nonexistent/valkey.sock?db=0"))
    return settings.model_copy(update={"valkey": nowhere})


@pytest.fixture
def sign_in(accounts: Accounts) -> Callable[..., Awaitable[SignedIn]]:
    async def enter(
        email: str = "ana@example.com",
        *,
        password: str = PASSWORD,
        address: str | None = HOME,
        through: Accounts = accounts,
    ) -> SignedIn:
        credentials = Credentials(email=email, password=SecretStr(password))
        tokens = await login(through, credentials, Client(address, "curl/8.5"))
        return SignedIn(email, tokens, await authenticate(through, tokens.access_token))

    return enter


@pytest.fixture
def sign_up(
    accounts: Accounts, sign_in: Callable[..., Awaitable[SignedIn]]
) -> Callable[..., Awaitable[SignedIn]]:
    async def enter(email: str = "ana@example.com", name: str = "Ana Lima") -> SignedIn:
        registration = Registration(email=email, name=name, password=SecretStr(PASSWORD))
        await register(accounts, registration, Client(HOME))
        return await sign_in(email)

    return enter
