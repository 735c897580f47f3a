"""Erasing an account and what it owns.

At once, in one transaction: the user is deleted, and with it the memberships and every session;
unfinished jobs of the personal tenant are cancelled; a job to erase the tenant is enqueued. Nobody
can sign in any more and the e-mail address is free. The job then deletes the tenant's rows in short
transactions, and in its last one the tenant, with whatever was written meanwhile and itself.
"""

from contextlib import suppress
from typing import Final
from uuid import UUID

from sqlalchemy import Table, delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.accounts.models import Session
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import EraseTenant, Principal
from jangada.accounts.service.profile import confirm_password
from jangada.db import Base
from jangada.jobs import service as jobs
from jangada.jobs.errors import JobAlreadyFinished, JobNotFound
from jangada.jobs.models import Job, is_final
from jangada.runtime import Runtime
from jangada.schedules import service as schedules
from jangada.tenants.models import Membership, Tenant, TenantKind, User

BATCH_ROWS: Final = 5_000
ERASED_NAME: Final = "erased"

_KEPT_TO_THE_END: Final = frozenset({"jobs", "roles", "memberships"})
"""Few rows, and the erasing job's own: they go with the tenant, by cascade."""


async def erase_account(accounts: Accounts, who: Principal, password: str) -> None:
    """Delete the principal's user now, and have the personal tenant erased.

    Raises `PasswordWrong` or `SignInThrottled`.
    """
    user = await confirm_password(accounts, who, password, pointer="/password")
    async with accounts.runtime.database.system_transaction("account erasure") as session:
        ended = await session.scalars(select(Session.id).where(Session.user_id == user.id))
        session_ids = ended.all()
        for tenant in await _personal_tenants(session, user):
            await _close(session, tenant)
        await session.delete(await session.merge(user, load=False))
    for session_id in session_ids:
        accounts.revocations.end(session_id)


async def _personal_tenants(session: AsyncSession, user: User) -> list[Tenant]:
    tenants = await session.scalars(
        select(Tenant)
        .join(Membership, Membership.tenant_id == Tenant.id)
        .where(Membership.user_id == user.id, Tenant.kind == TenantKind.PERSONAL)
    )
    return list(tenants)


async def _close(session: AsyncSession, tenant: Tenant) -> None:
    """Stop the tenant's work and have its data erased."""
    tenant.name = ERASED_NAME
    unfinished = await session.scalars(
        select(Job.id).where(Job.tenant_id == tenant.id, ~is_final()).order_by(Job.id)
    )
    for job_id in unfinished.all():
        with suppress(JobAlreadyFinished, JobNotFound):  # just now, and that is as good
            await jobs.cancel(session, tenant.id, job_id)
    await schedules.pause_all(session, tenant.id)
    await jobs.enqueue(session, EraseTenant(), tenant_id=tenant.id)


async def erase_rows(runtime: Runtime, tenant_id: UUID) -> None:
    """Delete the tenant's rows in short transactions. Can be repeated after a crash.

    Stored files go too: a trigger notes them, and the sweep of files removes what is noted.
    """
    for table in reversed(Base.metadata.sorted_tables):
        if _goes_with_its_tenant(table) and table.name not in _KEPT_TO_THE_END:
            while await _erase_batch(runtime, tenant_id, table):
                pass


async def delete_tenant(session: AsyncSession, tenant_id: UUID) -> None:
    """Delete the tenant, and by cascade whatever it has left."""
    await session.execute(delete(Tenant).where(Tenant.id == tenant_id))


def _goes_with_its_tenant(table: Table) -> bool:
    """Some rows name a tenant and are meant to outlive it; only the others refer to it."""
    column = table.columns.get("tenant_id")
    return column is not None and any(
        key.column.table.name == Tenant.__tablename__ for key in column.foreign_keys
    )


async def _erase_batch(runtime: Runtime, tenant_id: UUID, table: Table) -> bool:
    """Delete some rows of a table in a transaction of their own; False when none were left."""
    rows = f"{table.name} WHERE tenant_id = :tenant"
    statement = (
        f"WITH erased AS (DELETE FROM {rows} AND ctid = ANY(ARRAY("  # noqa: S608 - a table of ours
        f"SELECT ctid FROM {rows} LIMIT :batch)) RETURNING 1) SELECT count(*) FROM erased"
    )
    async with runtime.database.transaction(tenant_id) as session:
        erased = await session.scalar(text(statement), {"tenant": tenant_id, "batch": BATCH_ROWS})
    return bool(erased)
