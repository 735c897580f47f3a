"""Registering and signing in, on a real PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher as Argon2
from pydantic import SecretStr
from sqlalchemy import func, select, text, update

from jangada.accounts.errors import (
    EmailTaken,
    PasswordRefused,
    SignInFailed,
    TokenExpired,
    TokenInvalid,
)
from jangada.accounts.models import Session
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import Client, Registration
from jangada.accounts.service import sign_in as verbs
from jangada.accounts.service.refreshing import refresh
from jangada.accounts.service.registration import register
from jangada.auth_settings import AuthSettings
from jangada.config import Settings
from jangada.db import Database
from jangada.tenants.models import Membership, Role, Tenant, User
from jangada.testing import FrozenClock

pytestmark = pytest.mark.anyio

type Enter = Callable[..., Awaitable[Any]]
type Open = Callable[..., AbstractAsyncContextManager[Accounts]]


def registration(email: str, password: str, name: str = "Ana Lima") -> Registration:
    return Registration(email=email, name=name, password=SecretStr(password))


async def count(database: Database, entity: type) -> int:
    async with database.system_transaction("test") as session:
        return await session.scalar(select(func.count()).select_from(entity)) or 0


async def test_registering_makes_a_person_a_tenant_and_its_owner(
    accounts: Accounts, database: Database, password: str
) -> None:
    user = await register(accounts, registration("Ana@Example.com", password), Client())
    assert user.id.version == 7
    assert (user.email, user.email_key) == ("Ana@example.com", "ana@example.com")
    assert str(user.password_hash).startswith("$argon2id$")
    async with database.system_transaction("test") as session:
        tenant, role = (
            await session.execute(
                select(Tenant, Role.name)
                .join(Membership, Membership.tenant_id == Tenant.id)
                .join(Role, Role.id == Membership.role_id)
                .where(Membership.user_id == user.id)
            )
        ).one()
    assert (tenant.kind, role) == ("personal", "owner")


async def test_a_weak_password_makes_no_account(accounts: Accounts, database: Database) -> None:
    with pytest.raises(PasswordRefused):
        await register(accounts, registration("ana@example.com", "too short"), Client())
    assert await count(database, User) == 0


async def test_ten_spellings_at_once_make_one_account(
    accounts: Accounts, database: Database, password: str
) -> None:
    spellings = ["ana@example.com", "ANA@EXAMPLE.COM", "Ana@Example.com", " ana@example.com "]
    outcomes = await asyncio.gather(
        *(register(accounts, registration(s, password), Client()) for s in spellings * 3),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, User) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, EmailTaken) for outcome in outcomes) == 11
    assert [await count(database, entity) for entity in (User, Tenant, Membership)] == [1, 1, 1]


async def test_sign_in_takes_any_spelling_of_the_address(sign_up: Enter, sign_in: Enter) -> None:
    first = await sign_up("ana@example.com")
    second = await sign_in("ＡＮＡ@EXAMPLE.com")
    assert second.who.user_id == first.who.user_id
    assert second.who.session_id != first.who.session_id
    assert second.who.roles == {"owner"}


async def test_unknown_address_and_wrong_password_are_the_same_to_the_caller(
    sign_up: Enter, sign_in: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same error, and the same hashes asked of argon2: timing has nothing else to show."""
    hashed: list[str] = []
    verify = Argon2.verify

    def recording(self: Argon2, encoded: str, password: bytes) -> bool:
        hashed.append(encoded.split("$")[3])
        return verify(self, encoded, password)

    await sign_up("ana@example.com")
    monkeypatch.setattr(Argon2, "verify", recording)
    said = []
    for email in ("ana@example.com", "nobody@example.com"):
        with pytest.raises(SignInFailed) as failed:
            await sign_in(email, password="not the password at all")
        said.append((failed.value.code, failed.value.detail, failed.value.errors))
    assert said[0] == said[1]
    assert hashed == ["m=8192,t=1,p=1"] * 2


async def test_a_disabled_person_cannot_sign_in_and_is_not_told(
    sign_up: Enter, sign_in: Enter, database: Database, clock: FrozenClock
) -> None:
    await sign_up()
    async with database.system_transaction("test") as session:
        await session.execute(update(User).values(disabled_at=clock.now()))
    with pytest.raises(SignInFailed):
        await sign_in()


async def test_signing_in_renews_a_hash_of_old_parameters(
    accounts: Accounts, sign_up: Enter, sign_in: Enter, open_process: Open
) -> None:
    await sign_up()
    settings = accounts.runtime.settings
    stronger = with_auth(settings, hash=settings.auth.hash.model_copy(update={"time_cost": 2}))
    async with open_process(stronger) as renewed:
        await sign_in(through=renewed)
        async with accounts.runtime.database.system_transaction("test") as session:
            encoded = await session.scalar(select(User.password_hash))
        assert "$m=8192,t=2,p=1$" in str(encoded)
        assert await sign_in(through=renewed)


async def test_a_sign_in_cannot_overtake_a_password_change(
    accounts: Accounts, sign_up: Enter, database: Database
) -> None:
    """The password was right when it was compared, and was changed before the session opened."""
    person = await sign_up()
    compared = await verbs._find_candidate(accounts.runtime, person.email, Client())
    async with database.system_transaction("test") as session:
        await session.execute(update(User).values(password_hash="$argon2id$another"))
    with pytest.raises(SignInFailed):
        await verbs._open(accounts, compared, Client(), None)


async def test_a_person_without_a_home_cannot_sign_in(
    accounts: Accounts, sign_up: Enter, sign_in: Enter, database: Database
) -> None:
    await sign_up()
    async with database.system_transaction("test") as session:
        await session.execute(update(Tenant).values(kind="team"))
    with pytest.raises(SignInFailed):
        await sign_in()


async def test_nothing_that_lets_anybody_in_is_stored(
    sign_up: Enter, database: Database, password: str
) -> None:
    person = await sign_up()
    async with database.system_transaction("test") as session:
        tables = ("users", "sessions", "signing_keys", "session_ends")
        stored = [str((await session.execute(text(f"TABLE {table}"))).all()) for table in tables]
    for secret in (password, person.tokens.access_token, person.tokens.refresh_token):
        assert all(secret not in rows for rows in stored)


async def test_a_token_shows_no_secret_when_printed(sign_up: Enter, password: str) -> None:
    person = await sign_up()
    assert person.tokens.access_token not in repr(person.tokens)
    assert password not in repr(registration("ana@example.com", password))


async def test_lifetimes_are_settings(
    accounts: Accounts, sign_up: Enter, open_process: Open, clock: FrozenClock
) -> None:
    person = await sign_up()
    short = with_auth(accounts.runtime.settings, access_token_lifetime=timedelta(minutes=2))
    async with open_process(short) as other:
        tokens = await refresh(other, person.tokens.refresh_token)
        assert tokens.expires_in == timedelta(minutes=2)
        clock.advance(timedelta(minutes=2))
        with pytest.raises(TokenExpired):
            await verbs.authenticate(other, tokens.access_token)


async def test_a_token_of_another_installation_is_refused(
    sign_up: Enter, open_process: Open, settings: Settings
) -> None:
    person = await sign_up()
    for change in ({"issuer": "https://other.example"}, {"audience": "other"}):
        async with open_process(with_auth(settings, **change)) as other:
            with pytest.raises(TokenInvalid):
                await verbs.authenticate(other, person.tokens.access_token)


async def test_a_session_remembers_where_it_came_from(
    sign_in: Enter, sign_up: Enter, database: Database
) -> None:
    person = await sign_up()
    async with database.transaction(person.who.tenant_id) as session:
        row = await session.scalar(select(Session))
    assert row is not None
    assert (row.address, row.user_agent) == ("203.0.113.7", "curl/8.5")


def with_auth(settings: Settings, **changes: object) -> Settings:
    auth: AuthSettings = settings.auth.model_copy(update=changes)
    return settings.model_copy(update={"auth": auth})
