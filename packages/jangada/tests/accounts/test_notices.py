"""The notice of a changed password: from the change to the mail."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, select, text

from jangada.accounts.errors import PasswordRefused, PasswordWrong
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import PasswordChange, PasswordChangedNotice
from jangada.accounts.service.erasure import erase_account
from jangada.accounts.service.notices import SUBJECT, send_password_changed
from jangada.accounts.service.profile import change_password
from jangada.config import Settings
from jangada.db import Database, new_id
from jangada.jobs.models import Job, JobState
from jangada.runtime import Runtime
from jangada.tenants.models import User
from jangada.testing import (
    FrozenClock,
    MailServer,
    Person,
    frozen_runtime,
    make_person,
    open_mail_server,
)

pytestmark = pytest.mark.anyio

type Enter = Callable[..., Awaitable[Any]]

NEXT = "another tide, another raft"
CHANGED_AT = datetime(2026, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=-3)))


def change(current: str, new: str = NEXT) -> PasswordChange:
    return PasswordChange(current_password=SecretStr(current), new_password=SecretStr(new))


async def notices(database: Database) -> list[Job]:
    async with database.system_transaction("test") as session:
        found = await session.scalars(select(Job).where(Job.kind == PasswordChangedNotice.kind))
        return list(found)


async def test_a_change_asks_for_one_notice_in_its_own_transaction(
    accounts: Accounts, sign_up: Enter, password: str, database: Database
) -> None:
    person = await sign_up()
    await change_password(accounts, person.who, change(password))
    (job,) = await notices(database)
    assert (job.tenant_id, job.created_by) == (person.who.tenant_id, person.who.user_id)
    assert PasswordChangedNotice.model_validate(job.args) == PasswordChangedNotice(
        user_id=person.who.user_id, changed_at=accounts.runtime.clock.now()
    )
    assert person.email not in str(vars(job))
    async with database.system_transaction("test") as session:
        written_by = "SELECT xmin FROM users UNION SELECT xmin FROM jobs"
        assert len((await session.execute(text(written_by))).all()) == 1


@pytest.mark.parametrize(
    ("current", "new", "refusal"),
    [("not the password", NEXT, PasswordWrong), (None, "too short", PasswordRefused)],
)
async def test_a_refused_change_asks_for_none(  # noqa: PLR0917 - the table's columns
    accounts: Accounts,
    sign_up: Enter,
    password: str,
    database: Database,
    current: str | None,
    new: str,
    refusal: type[Exception],
) -> None:
    person = await sign_up()
    with pytest.raises(refusal):
        await change_password(accounts, person.who, change(current or password, new))
    assert await notices(database) == []


async def test_an_erased_account_waits_for_no_notice(
    accounts: Accounts, sign_up: Enter, password: str, database: Database
) -> None:
    person = await sign_up()
    await change_password(accounts, person.who, change(password))
    await erase_account(accounts, person.who, NEXT)
    assert [job.state for job in await notices(database)] == [JobState.CANCELLED]


@pytest.fixture
async def mailing(
    settings: Settings, clock: FrozenClock, mail_server: MailServer
) -> AsyncIterator[Runtime]:
    """A runtime with a mail server."""
    ours = settings.model_copy(update={"mail": mail_server.settings})
    async with frozen_runtime(ours, clock) as runtime:
        yield runtime


def notice_for(person: Person) -> PasswordChangedNotice:
    return PasswordChangedNotice(user_id=person.user.id, changed_at=CHANGED_AT)


async def test_a_notice_says_when_and_what_to_do(mailing: Runtime, mail_server: MailServer) -> None:
    person = await make_person(mailing.database, "Click-here-to-win")
    await send_password_changed(mailing, person.tenant_id, notice_for(person), key="k")
    (mail,) = mail_server.mails
    body = mail.get_content()
    assert (mail["To"], mail["Subject"]) == (person.user.email, SUBJECT)
    assert "changed on 2026-03-01 at 12:30 UTC" in body
    assert "signed out" in body
    assert "If you did not" in body
    assert "http" not in body
    assert person.user.name not in body
    assert all(len(line) <= 76 and line.isascii() for line in body.splitlines())


async def test_nobody_is_told_of_an_account_that_is_gone(
    mailing: Runtime, mail_server: MailServer, person: Person
) -> None:
    async with mailing.database.system_transaction("test") as session:
        await session.execute(delete(User).where(User.id == person.user.id))
    await send_password_changed(mailing, person.tenant_id, notice_for(person), key="k")
    assert mail_server.envelopes == []


async def test_no_transaction_is_open_while_the_mail_is_sent(
    settings: Settings, clock: FrozenClock, person: Person
) -> None:
    used: list[int] = []

    class Watching(MailServer):
        def reply(self, command: str) -> str:
            used.append(runtime.database.pool_usage().used)
            return super().reply(command)

    async with open_mail_server(Watching()) as server:
        ours = settings.model_copy(update={"mail": server.settings})
        async with frozen_runtime(ours, clock) as runtime:
            await send_password_changed(runtime, person.tenant_id, notice_for(person), key="k")
    assert used == [0, 0, 0]


def test_a_notice_of_an_unknown_time_zone_is_none() -> None:
    with pytest.raises(ValueError, match="timezone"):
        PasswordChangedNotice(user_id=new_id(), changed_at=CHANGED_AT.replace(tzinfo=None))
    stored = PasswordChangedNotice(user_id=new_id(), changed_at=CHANGED_AT).model_dump_json()
    read = PasswordChangedNotice.model_validate_json(stored)
    assert read.changed_at.astimezone(UTC) == CHANGED_AT
