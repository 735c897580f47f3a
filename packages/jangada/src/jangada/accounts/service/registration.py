"""Registering: a person gets a user, a personal tenant, and the owner's role in it, or nothing."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.accounts import addresses
from jangada.accounts.errors import EmailTaken
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import Client, Registration
from jangada.db import new_id
from jangada.errors import FieldError
from jangada.tenants.models import User
from jangada.tenants.service import create_personal_tenant


async def register(accounts: Accounts, registration: Registration, client: Client) -> User:
    """A new account, in one transaction.

    Raises `EmailInvalid`, `PasswordRefused`, `EmailTaken` in whatever spelling, and
    `SignInThrottled` for a client that keeps trying addresses that are taken.
    """
    address = addresses.parse(registration.email)
    password = registration.password.get_secret_value()
    accounts.policy.check(password, name=registration.name, email=address.email)
    count = accounts.throttle.address(client.address, action="register")
    await accounts.throttle.refuse_spent(count)
    user = User(
        id=new_id(),
        email=address.email,
        email_key=address.key,
        name=registration.name,
        password_hash=await accounts.hasher.hash(password),
    )
    # Asked again in its turn: of a burst all were let in above, before the first was counted.
    async with accounts.throttle.attempt(count):
        try:
            async with accounts.runtime.database.system_transaction("registration") as session:
                await _add(session, user)
        except EmailTaken:
            await accounts.throttle.count(count)
            raise
    return user


async def _add(session: AsyncSession, user: User) -> None:
    session.add(user)
    try:
        await session.flush()
    except IntegrityError as error:
        # Only the database can say so without a race.
        if "uq_users_email_key" in str(error.orig):
            detail = "This e-mail address has an account."
            fault = FieldError("/email", EmailTaken.code, detail)
            raise EmailTaken(detail, errors=[fault]) from None
        raise
    await create_personal_tenant(session, user)
