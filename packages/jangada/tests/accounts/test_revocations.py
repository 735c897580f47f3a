"""An access token dies with its session, in every process, within a second, without Valkey.

Each wait below is on a signal and far longer than the promised second; how long it really takes is
the bench's matter.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import delete, select, text

from jangada.accounts import runtime as process
from jangada.accounts.errors import SessionEnded
from jangada.accounts.models import EndReason, Session
from jangada.accounts.revocations import Revocations
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import PasswordChange, Principal
from jangada.accounts.service import housekeeping
from jangada.accounts.service.profile import change_password
from jangada.accounts.service.sessions import (
    end_all_sessions,
    end_session,
    logout,
    logout_by_refresh_token,
    mark_ended,
)
from jangada.accounts.service.sign_in import authenticate
from jangada.config import Settings
from jangada.db import Database
from jangada.local.postgres import EmbeddedPostgres
from jangada.tenants.models import User
from jangada.testing import FrozenClock, eventually, eventually_not

pytestmark = pytest.mark.anyio

type Enter = Callable[..., Awaitable[Any]]
type Open = Callable[..., AbstractAsyncContextManager[Accounts]]

NOW = FrozenClock().now()


@pytest.fixture
async def neighbour(open_process: Open, without_valkey: Settings) -> AsyncIterator[Accounts]:
    """Another API process, whose Valkey is away, and whose feed has read once."""
    async with open_process(without_valkey) as accounts:
        await eventually(lambda: accounts.revocations.is_fresh)
        yield accounts


async def learns_of_the_end(accounts: Accounts, who: Principal) -> None:
    await eventually(lambda: who.session_id in accounts.revocations._ended)


async def is_refused(accounts: Accounts, access_token: str) -> bool:
    try:
        await authenticate(accounts, access_token)
    except SessionEnded:
        return True
    return False


async def test_logout_reaches_every_process(
    accounts: Accounts, neighbour: Accounts, sign_up: Enter
) -> None:
    person = await sign_up()
    assert await authenticate(neighbour, person.tokens.access_token) == person.who
    await logout(accounts, person.who)
    assert await is_refused(accounts, person.tokens.access_token)
    await learns_of_the_end(neighbour, person.who)
    assert await is_refused(neighbour, person.tokens.access_token)


async def test_logout_without_valkey_at_all(
    neighbour: Accounts, open_process: Open, sign_in: Enter, sign_up: Enter
) -> None:
    await sign_up()
    settings = neighbour.runtime.settings
    async with open_process(settings) as another:
        person = await sign_in(through=neighbour)
        await logout(neighbour, person.who)
        await learns_of_the_end(another, person.who)


async def test_every_way_of_ending_a_session_is_followed(
    accounts: Accounts, neighbour: Accounts, sign_up: Enter, sign_in: Enter
) -> None:
    first = await sign_up()
    second, third, fourth = [await sign_in() for _ in range(3)]
    await end_session(accounts, first.who, second.who.session_id)
    await learns_of_the_end(neighbour, second.who)
    await logout_by_refresh_token(accounts, third.tokens.refresh_token)
    await learns_of_the_end(neighbour, third.who)
    change = {
        "current_password": "the tide goes out at six",
        "new_password": "another tide, another raft",
    }
    await change_password(accounts, first.who, PasswordChange.model_validate(change))
    await learns_of_the_end(neighbour, fourth.who)
    assert not await is_refused(neighbour, first.tokens.access_token)
    await end_all_sessions(accounts, first.who)
    await learns_of_the_end(neighbour, first.who)


async def test_deleting_a_person_ends_their_sessions_by_whatever_statement(
    neighbour: Accounts, sign_up: Enter, database: Database
) -> None:
    """The trigger fires for rows that go by cascade; no code of ours has to think of it."""
    person = await sign_up()
    async with database.system_transaction("test") as session:
        await session.execute(delete(User))
    await learns_of_the_end(neighbour, person.who)


async def test_an_end_that_is_rolled_back_never_happened(
    accounts: Accounts, neighbour: Accounts, sign_up: Enter, sign_in: Enter
) -> None:
    staying, leaving = await sign_up(), await sign_in()
    with suppress(ZeroDivisionError):
        async with accounts.runtime.database.system_transaction("test") as session:
            await mark_ended(
                session, Session.id == staying.who.session_id, EndReason.LOGOUT, now=NOW
            )
            raise ZeroDivisionError
    await logout(accounts, leaving.who)
    await learns_of_the_end(neighbour, leaving.who)
    assert not await is_refused(neighbour, staying.tokens.access_token)


async def test_an_end_that_commits_late_is_not_overlooked(
    accounts: Accounts, neighbour: Accounts, sign_up: Enter, sign_in: Enter
) -> None:
    """The later end is known first; the earlier one commits after the feed has passed it."""
    slow, quick = await sign_up(), await sign_in()
    async with accounts.runtime.database.system_transaction("test") as session:
        await mark_ended(session, Session.id == slow.who.session_id, EndReason.LOGOUT, now=NOW)
        await logout(accounts, quick.who)
        await learns_of_the_end(neighbour, quick.who)
    await learns_of_the_end(neighbour, slow.who)


async def test_a_process_that_cannot_follow_asks_for_each_request(
    accounts: Accounts, sign_up: Enter
) -> None:
    person = await sign_up()
    deaf = Revocations(accounts.runtime)
    assert not deaf.is_fresh
    await deaf.ensure_live(person.who)
    await logout(accounts, person.who)
    with pytest.raises(SessionEnded):
        await deaf.ensure_live(person.who)


async def test_a_feed_that_was_cut_off_reads_everything_again(
    accounts: Accounts, neighbour: Accounts, sign_up: Enter, postgres: EmbeddedPostgres
) -> None:
    person = await sign_up()
    async with accounts.runtime.database.system_transaction("test") as session:
        name = await session.scalar(text("SELECT current_database()"))
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        ).fetchall()
    assert len(ended) >= 2
    await logout(accounts, person.who)
    await learns_of_the_end(neighbour, person.who)
    await eventually(lambda: neighbour.revocations.is_fresh)


async def test_a_process_that_starts_later_knows_of_earlier_ends(
    accounts: Accounts, sign_up: Enter, open_process: Open
) -> None:
    person = await sign_up()
    await logout(accounts, person.who)
    async with open_process() as late:
        await learns_of_the_end(late, person.who)


async def test_ends_are_forgotten_when_their_tokens_have_expired(
    accounts: Accounts, sign_up: Enter, open_process: Open, database: Database
) -> None:
    person = await sign_up()
    await logout(accounts, person.who)
    async with database.system_transaction("test") as session:
        await session.execute(
            text("UPDATE session_ends SET ended_at = ended_at - interval '1 day'")
        )
    async with open_process() as late:
        await eventually(lambda: late.revocations.is_fresh)
        assert person.who.session_id not in late.revocations._ended
        await eventually_not(lambda: ends_on_record(database))


async def ends_on_record(database: Database) -> int:
    async with database.system_transaction("test") as session:
        return await session.scalar(text("SELECT count(*) FROM session_ends")) or 0


async def test_a_process_keeps_house_by_itself(
    sign_up: Enter, open_process: Open, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await sign_up()
    clock.advance(timedelta(days=61))
    monkeypatch.setattr(process, "HOUSEKEEPING_EVERY", timedelta(milliseconds=1))
    async with open_process() as accounts:
        await eventually_not(lambda: is_on_record(accounts, person.who))


async def is_on_record(accounts: Accounts, who: Principal) -> bool:
    async with accounts.runtime.database.read(who.tenant_id) as session:
        return bool(await session.scalar(select(Session.id).where(Session.id == who.session_id)))


async def test_housekeeping_deletes_sessions_long_expired(
    accounts: Accounts, sign_up: Enter, database: Database, clock: FrozenClock
) -> None:
    await sign_up()
    clock.advance(timedelta(days=59))
    await housekeeping.prune(accounts.runtime)
    async with database.system_transaction("test") as session:
        assert (await session.scalars(select(Session))).all()
    clock.advance(timedelta(days=2))
    await housekeeping.prune(accounts.runtime)
    async with database.system_transaction("test") as session:
        assert not (await session.scalars(select(Session))).all()
