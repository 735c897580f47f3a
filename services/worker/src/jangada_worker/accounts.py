"""Handlers of accounts: erasing what a deleted account has left, and notices by mail."""

from datetime import timedelta

from jangada.accounts.schemas import EraseTenant, PasswordChangedNotice
from jangada.accounts.service.erasure import delete_tenant, erase_rows
from jangada.accounts.service.notices import send_password_changed
from jangada.jobs.context import JobContext
from jangada.jobs.registry import handles


@handles(EraseTenant, timeout=timedelta(hours=2))
async def erase_tenant(_: EraseTenant, context: JobContext) -> None:
    """Delete the job's tenant, and the job with it, once nothing else of it is left.

    Completed before the tenant goes, while there still is a row to hold the fence.
    """
    await erase_rows(context.runtime, context.tenant_id)
    async with context.transaction() as session:
        await context.complete(session)
        await delete_tenant(session, context.tenant_id)


@handles(PasswordChangedNotice, timeout=timedelta(minutes=5))
async def tell_of_password_change(notice: PasswordChangedNotice, context: JobContext) -> None:
    """Sent at least once: a mail that was sent again has the same `Message-ID`."""
    await send_password_changed(
        context.runtime, context.tenant_id, notice, key=context.idempotency_key
    )
