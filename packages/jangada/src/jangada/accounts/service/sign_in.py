"""Signing in: from a password to the tokens of a new session, and from a token to a principal."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.accounts import access_tokens, addresses
from jangada.accounts.errors import SignInFailed, TokenInvalid
from jangada.accounts.hashing import Verification
from jangada.accounts.models import Session
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import Client, Credentials, Principal, Tokens
from jangada.accounts.service.issuing import issue, new_session
from jangada.accounts.service.refreshing import current_roles
from jangada.accounts.throttle import refuse
from jangada.runtime import Runtime
from jangada.tenants.models import Membership, Tenant, TenantKind, User, is_enabled


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Who an e-mail address belongs to, if anybody."""

    email_key: str
    user_id: UUID | None = None
    password_hash: str | None = None
    is_known_address: bool = False


async def login(accounts: Accounts, credentials: Credentials, client: Client) -> Tokens:
    """Open a session. Raises `SignInFailed`, `SignInThrottled` or `HashingBusy`.

    An unknown address and a wrong password do the same work, count the same and answer the same.
    """
    address = addresses.parse(credentials.email)
    password = credentials.password.get_secret_value()
    candidate = await _find_candidate(accounts.runtime, address.key, client)
    verification = await _verified(accounts, candidate, password=password, client=client)
    new_hash = await accounts.hasher.hash(password) if verification.is_outdated else None
    return await _open(accounts, candidate, client, new_hash)


async def _verified(
    accounts: Accounts, candidate: _Candidate, *, password: str, client: Client
) -> Verification:
    """The verification of a password that lets the candidate in.

    A password is compared even where none would do: neither the answer nor the time it takes says
    that an account is closed to everybody but this address.
    """
    throttle = accounts.throttle
    account = throttle.account(candidate.email_key)
    here = throttle.account_from(candidate.email_key, client.address)
    address = throttle.address(client.address)
    async with throttle.turn(here if candidate.is_known_address else account):
        spent = await throttle.spent(account, here, address)
        if address in spent:
            refuse(spent)
        verification = await accounts.hasher.verify(candidate.password_hash, password)
        is_closed = bool(spent.keys() - ({account} if candidate.is_known_address else set()))
        if is_closed or not verification.is_match:
            await throttle.count(account, here, address)
            refuse(spent)
            raise _failed()
    return verification


async def authenticate(accounts: Accounts, token: str) -> Principal:
    """Who a request with this access token speaks for; every delivery asks here.

    Raises `TokenInvalid`, `TokenExpired` or `SessionEnded`.
    """
    key = await accounts.keyring.find(access_tokens.key_id(token))
    if key is None:
        raise TokenInvalid("The access token is not valid.")
    runtime = accounts.runtime
    principal = access_tokens.verify(runtime.settings.auth, key, token, now=runtime.clock.now())
    await accounts.revocations.ensure_live(principal)
    return principal


async def _find_candidate(runtime: Runtime, email_key: str, client: Client) -> _Candidate:
    has_signed_in_from_here = exists().where(
        Session.user_id == User.id, Session.address == client.address
    )
    query = select(User.id, User.password_hash, has_signed_in_from_here).where(
        User.email_key == email_key, is_enabled()
    )
    async with runtime.database.system_transaction("sign-in") as session:
        row = (await session.execute(query)).one_or_none()
    return _Candidate(email_key) if row is None else _Candidate(email_key, *row)


async def _open(
    accounts: Accounts, candidate: _Candidate, client: Client, new_hash: str | None
) -> Tokens:
    signer = await accounts.keyring.signer()
    async with accounts.runtime.database.system_transaction("sign-in") as session:
        user = await _unchanged(session, candidate)
        if new_hash is not None:
            user.password_hash = new_hash
        tenant_id = await _home(session, user)
        opened = new_session(accounts.runtime, user_id=user.id, tenant_id=tenant_id, client=client)
        session.add(opened)
        roles = await current_roles(session, opened)
    return issue(accounts.runtime, signer, opened, roles)


async def _home(session: AsyncSession, user: User) -> UUID:
    """The tenant that a sign-in opens: the personal one, which every user has."""
    tenant_id = await session.scalar(
        select(Tenant.id)
        .join(Membership, Membership.tenant_id == Tenant.id)
        .where(Membership.user_id == user.id, Tenant.kind == TenantKind.PERSONAL)
    )
    if tenant_id is None:
        raise _failed()
    return tenant_id


async def _unchanged(session: AsyncSession, candidate: _Candidate) -> User:
    """The user, locked, if the password that was compared is still the password.

    Otherwise a sign-in could overtake the password change that ends all sessions.
    """
    user = await session.scalar(
        select(User)
        .where(User.id == candidate.user_id, User.password_hash == candidate.password_hash)
        .where(is_enabled())
        .with_for_update(key_share=True)
    )
    if user is None:
        raise _failed()
    return user


def _failed() -> SignInFailed:
    return SignInFailed("The e-mail address or the password is wrong.")
