"""One's own profile, password, sessions, and the end of it all."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.accounts.errors import (
    PasswordRefused,
    PasswordWrong,
    RefreshRefused,
    SessionEnded,
    SessionNotFound,
    SignInFailed,
)
from jangada.accounts.models import Session
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import EraseTenant, PasswordChange, ProfilePatch, Registration
from jangada.accounts.service import erasure, profile
from jangada.accounts.service.erasure import delete_tenant, erase_account, erase_rows
from jangada.accounts.service.profile import change_password, get_profile, patch_profile
from jangada.accounts.service.refreshing import refresh
from jangada.accounts.service.sessions import (
    end_session,
    list_sessions,
    logout,
    logout_by_refresh_token,
)
from jangada.accounts.service.sign_in import authenticate
from jangada.crud import PageRequest
from jangada.db import Base, Database, new_id
from jangada.jobs import service as jobs
from jangada.jobs.models import Job, JobState
from jangada.runtime import Runtime
from jangada.tenants.models import Tenant, User
from jangada.testing import FrozenClock, eventually

pytestmark = pytest.mark.anyio

type Enter = Callable[..., Awaitable[Any]]
type Open = Callable[..., AbstractAsyncContextManager[Accounts]]

NEXT = "another tide, another raft"


def change(current: str, new: str = NEXT) -> PasswordChange:
    return PasswordChange(current_password=SecretStr(current), new_password=SecretStr(new))


async def test_a_profile_is_read_and_patched(accounts: Accounts, sign_up: Enter) -> None:
    person = await sign_up(name="Ana Lima")
    async with accounts.runtime.database.transaction(person.who.tenant_id) as session:
        await patch_profile(session, person.who, ProfilePatch(name="  Ana L.  "))
    async with accounts.runtime.database.read(person.who.tenant_id) as session:
        assert (await get_profile(session, person.who)).name == "Ana L."


@pytest.mark.parametrize("name", [None, "", "   ", "x" * 201, "bell\x07", "nul\x00", "two\nlines"])
async def test_a_name_is_some_plain_text(name: str | None) -> None:
    with pytest.raises(ValidationError):
        ProfilePatch(name=name)
    with pytest.raises(ValidationError):
        Registration.model_validate({"email": "a@b.co", "name": name, "password": "x" * 15})


async def test_a_person_who_was_just_disabled_has_no_session(
    accounts: Accounts, sign_up: Enter, database: Database
) -> None:
    person = await sign_up()
    async with database.system_transaction("test") as session:
        await session.execute(update(User).values(disabled_at=accounts.runtime.clock.now()))
    with pytest.raises(SessionEnded):
        await change_password(accounts, person.who, change("whatever it was"))


async def test_an_empty_patch_changes_nothing(accounts: Accounts, sign_up: Enter) -> None:
    person = await sign_up(name="Ana Lima")
    async with accounts.runtime.database.transaction(person.who.tenant_id) as session:
        assert (await patch_profile(session, person.who, ProfilePatch())).name == "Ana Lima"


async def test_changing_the_password_ends_the_other_sessions(
    accounts: Accounts, sign_up: Enter, sign_in: Enter, password: str
) -> None:
    here, there = await sign_up(), await sign_in()
    await change_password(accounts, here.who, change(password))
    assert await authenticate(accounts, here.tokens.access_token) == here.who
    await refresh(accounts, here.tokens.refresh_token)
    with pytest.raises(SessionEnded):
        await authenticate(accounts, there.tokens.access_token)
    with pytest.raises(RefreshRefused):
        await refresh(accounts, there.tokens.refresh_token)
    with pytest.raises(SignInFailed):
        await sign_in(password=password)
    assert await sign_in(password=NEXT)


async def test_the_current_password_is_asked_for(accounts: Accounts, sign_up: Enter) -> None:
    person = await sign_up()
    with pytest.raises(PasswordWrong) as wrong:
        await change_password(accounts, person.who, change("not the password"))
    assert wrong.value.errors[0].pointer == "/current_password"


async def test_the_new_password_answers_to_the_policy(
    accounts: Accounts, sign_up: Enter, sign_in: Enter, password: str
) -> None:
    person = await sign_up(name="Ana Lima")
    with pytest.raises(PasswordRefused) as refused:
        await change_password(accounts, person.who, change(password, "ana lima ana lima"))
    assert {error.pointer for error in refused.value.errors} == {"/new_password"}
    assert await sign_in(password=password)


async def test_of_two_changes_with_the_same_current_password_one_wins(
    accounts: Accounts, sign_up: Enter, password: str, database: Database
) -> None:
    person = await sign_up()
    async with database.system_transaction("test") as session:
        stale = await session.scalar(select(User))
        assert stale is not None
    await change_password(accounts, person.who, change(password))
    async with database.system_transaction("test") as session:
        with pytest.raises(PasswordWrong):
            await profile._replace_hash(session, stale, "$argon2id$x")


async def test_one_sees_ones_own_live_sessions_only(
    accounts: Accounts, sign_up: Enter, sign_in: Enter, clock: FrozenClock
) -> None:
    stranger = await sign_up("bia@example.com", "Bia")
    first = await sign_up()
    ids = [first.who.session_id]
    for _ in range(3):
        clock.advance(timedelta(seconds=1))
        ids.append((await sign_in()).who.session_id)
    await end_session(accounts, first.who, ids.pop(1))
    with pytest.raises(SessionNotFound):
        await end_session(accounts, first.who, stranger.who.session_id)

    seen: list[Any] = []
    page = PageRequest(accounts.runtime.cursors, limit=2)
    async with accounts.runtime.database.read(first.who.tenant_id) as session:
        found = await list_sessions(session, first.who, page, now=clock.now())
        seen += found.data
        more = PageRequest(accounts.runtime.cursors, limit=2, cursor=found.next_cursor)
        rest = await list_sessions(session, first.who, more, now=clock.now())
        seen += rest.data
    assert [row.id for row in seen] == ids[::-1]
    assert rest.next_cursor is None


async def test_logging_out_twice_is_as_once(accounts: Accounts, sign_up: Enter) -> None:
    person = await sign_up()
    await logout(accounts, person.who)
    await logout(accounts, person.who)
    with pytest.raises(SessionEnded):
        await authenticate(accounts, person.tokens.access_token)
    for text_ in (person.tokens.refresh_token, "jgr_nonsense", ""):
        await logout_by_refresh_token(accounts, text_)


async def test_a_guessed_refresh_token_logs_nobody_out(accounts: Accounts, sign_up: Enter) -> None:
    person = await sign_up()
    token = person.tokens.refresh_token
    await logout_by_refresh_token(
        accounts, token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    )
    assert await authenticate(accounts, person.tokens.access_token) == person.who


async def rows_of(database: Database, tenant_id: object) -> dict[str, int]:
    """How many rows of the tenant are left, in every table that has tenants."""
    left = {}
    async with database.system_transaction("test") as session:
        for table in Base.metadata.sorted_tables:
            if "tenant_id" in table.columns:
                query = select(func.count()).where(table.c.tenant_id == tenant_id)
                if found := await session.scalar(query):
                    left[table.name] = found
    return left


async def test_erasing_asks_for_the_password(accounts: Accounts, sign_up: Enter) -> None:
    person = await sign_up()
    with pytest.raises(PasswordWrong) as wrong:
        await erase_account(accounts, person.who, "not the password")
    assert wrong.value.errors[0].pointer == "/password"
    await authenticate(accounts, person.tokens.access_token)


async def test_erasing_signs_out_everywhere_and_frees_the_address(
    accounts: Accounts, sign_up: Enter, sign_in: Enter, password: str
) -> None:
    here, there = await sign_up(), await sign_in()
    await erase_account(accounts, here.who, password)
    for session in (here, there):
        with pytest.raises(SessionEnded):
            await authenticate(accounts, session.tokens.access_token)
        with pytest.raises(RefreshRefused):
            await refresh(accounts, session.tokens.refresh_token)
    with pytest.raises(SignInFailed):
        await sign_in()
    assert (await sign_up()).who.user_id != here.who.user_id


async def test_erasing_keeps_nothing_of_the_person_and_stops_their_work(
    accounts: Accounts, sign_up: Enter, password: str, database: Database
) -> None:
    person = await sign_up("canary@example.com", "Canary Lima")
    tenant_id = person.who.tenant_id
    async with database.transaction(tenant_id) as session:
        waiting = await jobs.enqueue(session, EraseTenant(), tenant_id=tenant_id)
    await erase_account(accounts, person.who, password)
    async with database.system_transaction("test") as session:
        assert (await session.scalars(select(User))).all() == []
        assert await session.scalar(select(Tenant.name)) == "erased"
        states = dict((await session.execute(select(Job.id, Job.state))).all())
        left = str((await session.execute(text("SELECT * FROM session_ends"))).all())
    assert states.pop(waiting.id) == JobState.CANCELLED
    assert list(states.values()) == [JobState.AVAILABLE]
    assert "canary" not in left.lower()


async def one_waits(session: AsyncSession) -> None:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    async def is_so() -> int:
        await session.execute(text("SELECT pg_stat_clear_snapshot()"))
        return await session.scalar(waiting) or 0

    await eventually(is_so)


@pytest.mark.parametrize("last", ["UPDATE jobs SET state = 'completed'", "DELETE FROM jobs"])
async def test_erasing_minds_no_job_that_ends_or_goes_meanwhile(
    *, accounts: Accounts, sign_up: Enter, password: str, database: Database, last: str
) -> None:
    person = await sign_up()
    tenant_id = person.who.tenant_id
    async with database.transaction(tenant_id) as session:
        await jobs.enqueue(session, EraseTenant(), tenant_id=tenant_id)
    async with database.transaction(tenant_id) as session:
        await session.execute(text(last))
        erasing = asyncio.create_task(erase_account(accounts, person.who, password))
        await one_waits(session)
    await erasing
    with pytest.raises(SessionEnded):
        await authenticate(accounts, person.tokens.access_token)


async def test_who_is_erased_meanwhile_is_not_renamed(
    accounts: Accounts, sign_up: Enter, database: Database
) -> None:
    who = (await sign_up()).who

    async def rename() -> None:
        async with database.transaction(who.tenant_id) as own:
            await patch_profile(own, who, ProfilePatch(name="Bia"))

    async with database.system_transaction("test") as session:
        await session.execute(delete(User).where(User.id == who.user_id))
        renaming = asyncio.create_task(rename())
        await one_waits(session)
    with pytest.raises(SessionEnded):
        await renaming


async def erase_tenant(runtime: Runtime, tenant_id: UUID) -> None:
    await erase_rows(runtime, tenant_id)
    async with runtime.database.transaction(tenant_id) as session:
        await delete_tenant(session, tenant_id)


async def test_the_job_erases_everything_of_the_tenant_and_nothing_of_others(
    accounts: Accounts, sign_up: Enter, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "BATCH_ROWS", 2)
    database = accounts.runtime.database
    person, other = await sign_up(), await sign_up("bia@example.com", "Bia")
    before = await rows_of(database, other.who.tenant_id)
    await erase_account(accounts, person.who, password)
    await erase_tenant(accounts.runtime, person.who.tenant_id)
    assert await rows_of(database, person.who.tenant_id) == {}
    assert await rows_of(database, other.who.tenant_id) == before
    async with database.system_transaction("test") as session:
        assert list(await session.scalars(select(Tenant.id))) == [other.who.tenant_id]


async def test_erasing_a_tenant_can_be_repeated(accounts: Accounts, sign_up: Enter) -> None:
    person = await sign_up()
    for tenant_id in (person.who.tenant_id, person.who.tenant_id, new_id()):
        await erase_tenant(accounts.runtime, tenant_id)
        assert await rows_of(accounts.runtime.database, tenant_id) == {}


async def test_a_session_row_of_another_tenant_cannot_be_ended(
    accounts: Accounts, sign_up: Enter, database: Database
) -> None:
    person, other = await sign_up(), await sign_up("bia@example.com", "Bia")
    async with database.transaction(other.who.tenant_id) as session:
        await session.execute(update(Session).values(ended_at=accounts.runtime.clock.now()))
    tokens = await refresh(accounts, person.tokens.refresh_token)
    assert await authenticate(accounts, tokens.access_token) == person.who
