"""One's own profile and password."""

from sqlalchemy import Select, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from jangada import crud
from jangada.accounts.errors import PasswordWrong, SessionEnded
from jangada.accounts.models import EndReason, Session
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import (
    PasswordChange,
    PasswordChangedNotice,
    Principal,
    ProfilePatch,
)
from jangada.accounts.service.sessions import mark_ended
from jangada.errors import FieldError
from jangada.jobs import service as jobs
from jangada.tenants.models import User, is_enabled


async def get_profile(session: AsyncSession, who: Principal) -> User:
    """The principal's user; one that has just been erased has no session any more."""
    return await _found(session, _own(who))


async def patch_profile(session: AsyncSession, who: Principal, patch: ProfilePatch) -> User:
    """Raises as `get_profile`, also where an erasure is under way: the row is waited for."""
    user = await _found(session, _own(who).with_for_update(key_share=True))
    return await crud.patch(session, user, patch)


def _own(who: Principal) -> Select[User]:
    return select(User).where(User.id == who.user_id, is_enabled())


async def _found(session: AsyncSession, scope: Select[User]) -> User:
    user = await session.scalar(scope)
    if user is None:
        raise SessionEnded("The session has ended; sign in again.")
    return user


async def change_password(accounts: Accounts, who: Principal, change: PasswordChange) -> None:
    """Replace the password, end every other session of the person and have them told by mail.

    The notice is a job of the same transaction: without the change there is none, and once the
    change is committed no crash loses it. Raises `PasswordWrong`, `PasswordRefused` or
    `SignInThrottled`.
    """
    user = await confirm_password(
        accounts, who, change.current_password.get_secret_value(), pointer="/current_password"
    )
    new_password = change.new_password.get_secret_value()
    accounts.policy.check(new_password, name=user.name, email=user.email, pointer="/new_password")
    new_hash = await accounts.hasher.hash(new_password)
    now = accounts.runtime.clock.now()
    async with accounts.runtime.database.system_transaction("password change") as session:
        await _replace_hash(session, user, new_hash)
        ended = await mark_ended(
            session,
            (Session.user_id == user.id) & (Session.id != who.session_id),
            EndReason.PASSWORD_CHANGED,
            now=now,
        )
        notice = PasswordChangedNotice(user_id=user.id, changed_at=now)
        await jobs.enqueue(session, notice, tenant_id=who.tenant_id, created_by=user.id)
    for session_id in ended:
        accounts.revocations.end(session_id)


async def confirm_password(
    accounts: Accounts, who: Principal, password: str, *, pointer: str
) -> User:
    """The principal's user, once the password is proved again.

    Raises `PasswordWrong`, and `SignInThrottled` after many: a stolen access token must not serve
    to guess the password.
    """
    async with accounts.runtime.database.read(who.tenant_id) as session:
        user = await get_profile(session, who)
    count = accounts.throttle.account(str(user.id))
    async with accounts.throttle.attempt(count):
        verification = await accounts.hasher.verify(user.password_hash, password)
        if not verification.is_match:
            await accounts.throttle.count(count)
            raise _wrong(pointer)
    return user


async def _replace_hash(session: AsyncSession, user: User, new_hash: str) -> None:
    """Of two changes at once, made with the same current password, one wins."""
    changed = await session.scalar(
        update(User)
        .where(User.id == user.id, User.password_hash == user.password_hash)
        .values(password_hash=new_hash)
        .returning(User.id)
        .execution_options(synchronize_session=False)
    )
    if changed is None:
        raise _wrong("/current_password")


def _wrong(pointer: str) -> PasswordWrong:
    detail = "This is not the current password."
    return PasswordWrong(detail, errors=[FieldError(pointer, PasswordWrong.code, detail)])
