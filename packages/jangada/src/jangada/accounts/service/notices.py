"""Notices by mail about what happened to an account.

They hold nothing that a person wrote, so that nobody can have this platform carry their words to an
address that isn't theirs, and no link, so that people who are used to them learn to follow none.
"""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select

from jangada.accounts.schemas import PasswordChangedNotice
from jangada.mail import Mail
from jangada.runtime import Runtime
from jangada.tenants.models import User

SUBJECT: Final = "Your password was changed"

TEXT: Final = """\
The password of your account was changed on {day} at {time} UTC.

Everywhere else that you were signed in, you were signed out. Sign in there
with the new password.

If you changed it, there is nothing more to do.

If you did not, somebody else knows your old password and has set a new one:

- Tell the people who run this service at once.
- Wherever else you use the old password, change it.

This message was sent by a machine, and nobody reads answers to it.
"""


async def send_password_changed(
    runtime: Runtime, tenant_id: UUID, notice: PasswordChangedNotice, *, key: str
) -> None:
    """Mail the notice; to nobody once the account is erased. No transaction is open meanwhile.

    Raises what `Mailer.send` does.
    """
    async with runtime.database.read(tenant_id) as session:
        address = await session.scalar(select(User.email).where(User.id == notice.user_id))
    if address is not None:
        await runtime.mailer.send(Mail(address, SUBJECT, _text(notice.changed_at), key))


def _text(changed_at: datetime) -> str:
    moment = changed_at.astimezone(UTC)
    return TEXT.format(day=f"{moment:%Y-%m-%d}", time=f"{moment:%H:%M}")
