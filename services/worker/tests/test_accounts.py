"""The jobs of accounts: erasing what one has left, and notices by mail."""

from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

import jangada_worker.accounts  # noqa: F401 - registers the handler
from jangada.accounts.schemas import EraseTenant, PasswordChangedNotice
from jangada.config import Settings
from jangada.db import new_id, utc_now
from jangada.jobs import registry, service
from jangada.jobs.context import JobContext
from jangada.jobs.errors import LeaseLost
from jangada.jobs.models import Job, JobState
from jangada.runtime import Runtime, open_runtime
from jangada.tenants.models import Membership, Role, Tenant
from jangada.testing import MailServer, Person, make_person

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = pytest.mark.anyio


async def granted(runtime: Runtime, tenant_id: UUID) -> JobContext:
    """The erasing job, as a worker holds it after its grant."""
    async with runtime.database.transaction(tenant_id) as session:
        job = await service.enqueue(session, EraseTenant(), tenant_id=tenant_id)
        values = {"state": JobState.RUNNING, "attempt": 1, "worker_id": new_id()}
        await session.execute(update(Job).where(Job.id == job.id).values(values))
    return JobContext(runtime, tenant_id, job.id, attempt=1, max_attempts=20)


async def left(runtime: Runtime, tenant_id: UUID) -> list[int]:
    async with runtime.database.system_transaction("test") as session:
        return [
            await session.scalar(select(func.count()).where(column == tenant_id)) or 0
            for column in (Tenant.id, Role.tenant_id, Membership.tenant_id, Job.tenant_id)
        ]


async def test_the_tenant_goes_and_the_job_with_it(runtime: Runtime, person: Person) -> None:
    other = await make_person(runtime.database, "Bia")
    context = await granted(runtime, person.tenant_id)
    await registry.get(EraseTenant.kind).handler(EraseTenant(), context)
    assert context.completed
    assert await left(runtime, person.tenant_id) == [0, 0, 0, 0]
    assert await left(runtime, other.tenant_id) == [1, 1, 1, 0]


async def test_an_attempt_that_lost_its_lease_does_not_delete_the_tenant(
    runtime: Runtime, person: Person
) -> None:
    context = await granted(runtime, person.tenant_id)
    context.attempt = 0
    with pytest.raises(LeaseLost):
        await registry.get(EraseTenant.kind).handler(EraseTenant(), context)
    assert (await left(runtime, person.tenant_id))[0] == 1


async def test_the_handler_mails_the_notice(
    settings: Settings, mail_server: MailServer, person: Person
) -> None:
    ours = settings.model_copy(update={"mail": mail_server.settings})
    notice = PasswordChangedNotice(user_id=person.user.id, changed_at=utc_now())
    async with open_runtime(ours) as runtime:
        context = JobContext(runtime, person.tenant_id, new_id(), attempt=1, max_attempts=20)
        for _ in range(2):
            await registry.get(notice.kind).handler(notice, context)
    first, again = mail_server.mails
    assert first["To"] == person.user.email
    assert first["Message-ID"] == again["Message-ID"]


async def mailing_worker(raft: "Raft", server: MailServer) -> Path:
    """Start a dispatcher and a worker with this mail server; where the worker's log is."""
    await raft.dispatcher()
    program = await raft.start("worker", mail__url=server.url, mail__starttls="off")
    return program.log


async def ask_for_notice(raft: "Raft") -> Job:
    notice = PasswordChangedNotice(user_id=raft.person.user.id, changed_at=utc_now())
    async with raft.runtime.database.transaction(raft.person.tenant_id) as session:
        return await service.enqueue(session, notice, tenant_id=raft.person.tenant_id)


async def test_a_notice_comes_although_the_mail_server_was_busy(
    raft: "Raft", mail_server: MailServer
) -> None:
    address = raft.person.user.email
    mail_server.replies["RCPT"] = [f"450 {address} is busy"]
    log = await mailing_worker(raft, mail_server)
    job = await raft.until_state(await ask_for_notice(raft), JobState.COMPLETED)
    assert [mail["To"] for mail in mail_server.mails] == [address]
    assert (job.attempt, [error["code"] for error in job.errors]) == (2, ["mail.unavailable"])
    assert address not in f"{log.read_text()} {job.errors} {job.args}"


async def test_a_notice_that_is_refused_for_good_is_not_sent_again(
    raft: "Raft", mail_server: MailServer
) -> None:
    address = raft.person.user.email
    mail_server.replies["RCPT"] = [f"550 {address} is unknown"]
    log = await mailing_worker(raft, mail_server)
    job = await raft.until_state(await ask_for_notice(raft), JobState.DISCARDED)
    assert mail_server.envelopes == []
    assert [error["code"] for error in job.errors] == ["mail.refused"]
    written = log.read_text()
    assert "mail.refused" in written
    assert address not in f"{written} {job.errors} {job.args}"
