"""Refresh tokens: one successor each, a moment of grace, and the end of a family that is reused."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from jangada.accounts.errors import RefreshRefused, SessionEnded
from jangada.accounts.keyring import rotate
from jangada.accounts.models import Session
from jangada.accounts.refresh_tokens import RefreshToken
from jangada.accounts.runtime import Accounts
from jangada.accounts.service.refreshing import refresh
from jangada.accounts.service.sign_in import authenticate
from jangada.config import Settings
from jangada.db import Database, new_id
from jangada.tenants.models import User
from jangada.testing import FrozenClock

pytestmark = pytest.mark.anyio

type Enter = Callable[..., Awaitable[Any]]
type Open = Callable[..., AbstractAsyncContextManager[Accounts]]

GRACE = timedelta(seconds=30)


async def end_reason(database: Database) -> str | None:
    async with database.system_transaction("test") as session:
        return await session.scalar(select(Session.end_reason))


async def test_a_refresh_gives_a_new_pair_for_the_same_session(
    accounts: Accounts, sign_up: Enter
) -> None:
    person = await sign_up()
    tokens = await refresh(accounts, person.tokens.refresh_token)
    assert tokens.refresh_token != person.tokens.refresh_token
    assert tokens.access_token != person.tokens.access_token
    assert await authenticate(accounts, tokens.access_token) == person.who


async def test_twenty_refreshes_at_once_have_one_successor(
    accounts: Accounts, sign_up: Enter, open_process: Open
) -> None:
    """Spread over two processes; afterwards the session lives and the successor works."""
    person = await sign_up()
    async with open_process() as other:
        pairs = await asyncio.gather(
            *(refresh(through, person.tokens.refresh_token) for through in (accounts, other) * 10)
        )
    assert len({pair.refresh_token for pair in pairs}) == 1
    assert len({pair.access_token for pair in pairs}) == 20
    await refresh(accounts, pairs[0].refresh_token)


async def test_the_grace_lasts_thirty_seconds_from_the_rotation(
    accounts: Accounts, sign_up: Enter, clock: FrozenClock
) -> None:
    person = await sign_up()
    first = await refresh(accounts, person.tokens.refresh_token)
    clock.advance(GRACE - timedelta(milliseconds=1))
    assert (await refresh(accounts, person.tokens.refresh_token)).refresh_token == (
        first.refresh_token
    )
    clock.advance(timedelta(milliseconds=1))
    with pytest.raises(RefreshRefused):
        await refresh(accounts, person.tokens.refresh_token)


async def test_reuse_after_the_grace_ends_the_whole_family(
    accounts: Accounts, sign_up: Enter, clock: FrozenClock, database: Database
) -> None:
    person = await sign_up()
    newest = await refresh(accounts, person.tokens.refresh_token)
    clock.advance(GRACE)
    with pytest.raises(RefreshRefused):
        await refresh(accounts, person.tokens.refresh_token)
    with pytest.raises(RefreshRefused):
        await refresh(accounts, newest.refresh_token)
    with pytest.raises(SessionEnded):
        await authenticate(accounts, newest.access_token)
    assert await end_reason(database) == "token_reused"


async def test_an_older_generation_ends_the_family_even_in_the_grace(
    accounts: Accounts, sign_up: Enter, database: Database
) -> None:
    person = await sign_up()
    second = await refresh(accounts, person.tokens.refresh_token)
    third = await refresh(accounts, second.refresh_token)
    with pytest.raises(RefreshRefused):
        await refresh(accounts, person.tokens.refresh_token)
    with pytest.raises(RefreshRefused):
        await refresh(accounts, third.refresh_token)
    assert await end_reason(database) == "token_reused"


async def test_other_sessions_of_the_person_survive(
    accounts: Accounts, sign_up: Enter, sign_in: Enter, clock: FrozenClock
) -> None:
    stolen, untouched = await sign_up(), await sign_in()
    await refresh(accounts, stolen.tokens.refresh_token)
    clock.advance(GRACE)
    with pytest.raises(RefreshRefused):
        await refresh(accounts, stolen.tokens.refresh_token)
    await refresh(accounts, untouched.tokens.refresh_token)


async def test_a_forged_old_token_ends_nothing(
    accounts: Accounts, sign_up: Enter, clock: FrozenClock
) -> None:
    """Who knows a session's id (it is in the access token) must not be able to end it."""
    person = await sign_up()
    tokens = await refresh(accounts, person.tokens.refresh_token)
    clock.advance(GRACE)
    for generation in (0, 1, 2, 4_000_000_000):
        forged = RefreshToken.derive(
            b"guessed",
            tenant_id=person.who.tenant_id,
            family=person.who.session_id,
            generation=generation,
        )
        with pytest.raises(RefreshRefused):
            await refresh(accounts, forged.encode())
    await refresh(accounts, tokens.refresh_token)


async def test_a_token_of_another_tenant_or_of_nobody_is_refused(
    accounts: Accounts, sign_up: Enter
) -> None:
    person = await sign_up()
    good = RefreshToken.parse(person.tokens.refresh_token)
    assert good is not None
    foreign = RefreshToken(new_id(), good.family, good.generation, good.mac)
    unknown = RefreshToken(good.tenant_id, new_id(), good.generation, good.mac)
    for text in ("", "jgr_", person.tokens.access_token, foreign.encode(), unknown.encode()):
        with pytest.raises(RefreshRefused):
            await refresh(accounts, text)
    await refresh(accounts, person.tokens.refresh_token)


async def test_a_session_ends_seven_days_after_its_last_refresh(
    accounts: Accounts, sign_up: Enter, clock: FrozenClock
) -> None:
    person = await sign_up()
    clock.advance(timedelta(days=7, seconds=-1))
    tokens = await refresh(accounts, person.tokens.refresh_token)
    clock.advance(timedelta(days=7))
    with pytest.raises(RefreshRefused):
        await refresh(accounts, tokens.refresh_token)


async def test_a_session_ends_after_thirty_days_however_often_it_is_refreshed(
    accounts: Accounts, sign_up: Enter, clock: FrozenClock
) -> None:
    tokens = (await sign_up()).tokens
    for _ in range(5):
        clock.advance(timedelta(days=6) - timedelta(minutes=1))
        tokens = await refresh(accounts, tokens.refresh_token)
    assert tokens.expires_in == timedelta(minutes=5)
    clock.advance(timedelta(minutes=5))
    with pytest.raises(RefreshRefused):
        await refresh(accounts, tokens.refresh_token)


async def test_a_disabled_person_cannot_refresh(
    accounts: Accounts, sign_up: Enter, database: Database, clock: FrozenClock
) -> None:
    person = await sign_up()
    async with database.system_transaction("test") as session:
        await session.execute(update(User).values(disabled_at=clock.now()))
    with pytest.raises(RefreshRefused):
        await refresh(accounts, person.tokens.refresh_token)


async def test_sessions_outlive_the_replacement_of_the_master_key(
    accounts: Accounts, sign_up: Enter, open_process: Open, settings: Settings
) -> None:
    """Their hashes know them; only a refresh that was under way must be repeated with the new."""
    person = await sign_up()
    auth = settings.auth.model_copy(update={"master_key": SecretStr("another " * 5)})
    async with open_process(settings.model_copy(update={"auth": auth})) as renewed:
        await rotate(renewed.runtime, discard_old=True)
        tokens = await refresh(renewed, person.tokens.refresh_token)
        assert await authenticate(renewed, tokens.access_token) == person.who
        await refresh(renewed, tokens.refresh_token)


async def test_a_refresh_under_a_replaced_key_is_refused_and_ends_nothing(
    accounts: Accounts, sign_up: Enter, open_process: Open, settings: Settings
) -> None:
    """As long as its successor was not lost, nobody has to sign in again."""
    person = await sign_up()
    tokens = await refresh(accounts, person.tokens.refresh_token)
    auth = settings.auth.model_copy(update={"master_key": SecretStr("another " * 5)})
    async with open_process(settings.model_copy(update={"auth": auth})) as renewed:
        await rotate(renewed.runtime, discard_old=True)
        with pytest.raises(RefreshRefused):
            await refresh(renewed, person.tokens.refresh_token)
        await refresh(renewed, tokens.refresh_token)
