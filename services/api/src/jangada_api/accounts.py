"""Accounts over HTTP: registering, signing in, the public keys, and one's own account.

Answers that hold tokens are never cached. Browsers' cookie sessions come later: for now a token
travels in the body and comes back in the `Authorization` header, which no other site can make a
browser send.
"""

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import Body, Depends, Request, Response
from fastapi.openapi.models import Example
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from jangada import crud
from jangada.accounts.errors import (
    EmailInvalid,
    EmailTaken,
    HashingBusy,
    PasswordRefused,
    PasswordWrong,
    RefreshRefused,
    SessionNotFound,
    SignInFailed,
    SignInThrottled,
    TokenMissing,
)
from jangada.accounts.models import Session
from jangada.accounts.schemas import (
    EXAMPLE_REFRESH_TOKEN,
    Client,
    Credentials,
    PasswordChange,
    PasswordProof,
    Principal,
    ProfilePatch,
    RefreshGrant,
    Registration,
    Tokens,
)
from jangada.accounts.service import erasure, profile, sessions
from jangada.accounts.service.refreshing import refresh as exchange
from jangada.accounts.service.registration import register as register_account
from jangada.accounts.service.sign_in import login as sign_in
from jangada.errors import Unauthenticated
from jangada.tenants.models import User
from jangada_api.deps import AccountsDep, PrincipalDep, ReadSessionDep, RuntimeDep, SessionDep
from jangada_api.forwarded import client_address
from jangada_api.listing import Listing, PageDep
from jangada_api.openapi import documented
from jangada_api.principal import principal_of
from jangada_api.routing import api_router

router = api_router()

KEY_SET_CACHE: Final = "public, max-age=300"
"""Shorter than a new key is published before it signs, so no cache misses one."""

ACCOUNT_EXAMPLE: Final[JsonDict] = {
    "id": "0198f3f0-7c1e-7a52-9d52-7d5d7bcbf4a1",
    "email": "ana@example.com",
    "name": "Ana Lima",
    "created_at": "2026-03-01T12:00:00Z",
}
ME_EXAMPLE: Final[JsonDict] = {
    **ACCOUNT_EXAMPLE,
    "tenant_id": "0198f3f0-7c20-7b11-8a3f-5c2d1e0f9a8b",
    "roles": ["owner"],
}
TOKENS_EXAMPLE: Final[JsonDict] = {
    "access_token": "eyJhbGciOiJFZERTQSIsImtpZCI6IjAxOThmM2YwIiwidHlwIjoiYXQrand0In0.…",
    "refresh_token": EXAMPLE_REFRESH_TOKEN,
    "token_type": "Bearer",
    "expires_in": 900,
}
SESSION_EXAMPLE: Final[JsonDict] = {
    "id": "0198f3f0-9a44-7c33-8d21-6b5a4f3e2d1c",
    "created_at": "2026-03-01T12:00:00Z",
    "refreshed_at": "2026-03-01T12:14:00Z",
    "expires_at": "2026-03-08T12:14:00Z",
    "address": "203.0.113.7",
    "user_agent": "curl/8.5.0",
    "is_current": True,
}
ERASURE_EXAMPLE: Final[JsonDict] = {
    "erased": ["profile", "memberships", "sessions"],
    "cancelled": ["jobs"],
    "erasing": ["contacts", "files", "jobs"],
}
KEY_SET_EXAMPLE: Final[JsonDict] = {
    "keys": [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": "NYfmlJVmiMOliDKuS4JGIYqJU6oljkckQ-05Ablgf04",
            "use": "sig",
            "alg": "EdDSA",
            "kid": "0198f3f0-6a00-7f00-8e00-1d2c3b4a5968",
        }
    ]
}

LOGOUT_EXAMPLES: Final[dict[str, Example]] = {
    "with the refresh token": {"value": {"refresh_token": EXAMPLE_REFRESH_TOKEN}},
}


def example(value: JsonDict) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]})


class AccountOut(BaseModel):
    """A person's account."""

    model_config = example(ACCOUNT_EXAMPLE) | ConfigDict(from_attributes=True)

    id: UUID
    email: str = Field(description="As it was given; sign in with any spelling of it.")
    name: str
    created_at: datetime


class MeOut(AccountOut):
    """One's own account, and where one is signed in to."""

    model_config = example(ME_EXAMPLE)

    tenant_id: UUID = Field(description="The tenant that this session works in.")
    roles: list[str] = Field(description="One's roles there.")


class TokensOut(BaseModel):
    """What to send with requests, and what to renew it with."""

    model_config = example(TOKENS_EXAMPLE)

    access_token: str = Field(description="Send it as `Authorization: Bearer …`. A JWT.")
    refresh_token: str = Field(description="Good for one `POST /v1/auth/refresh`. Opaque.")
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - RFC 6749's word
    expires_in: int = Field(description="Seconds that the access token is good for.")


class SessionOut(BaseModel):
    """A place where one is signed in."""

    model_config = example(SESSION_EXAMPLE)

    id: UUID
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime = Field(description="When it ends unless it is refreshed before.")
    address: str | None = Field(description="The client's address at sign-in.")
    user_agent: str | None = Field(description="What the client called itself at sign-in.")
    is_current: bool = Field(description="Whether it is the session of this request.")


class ErasureOut(BaseModel):
    """What has become, and becomes, of everything that the account held."""

    model_config = example(ERASURE_EXAMPLE)

    erased: list[str] = Field(description="Gone: nobody can sign in, the address is free.")
    cancelled: list[str] = Field(description="Waiting ones are; running ones stop within 2 s.")
    erasing: list[str] = Field(description="A job of the platform deletes them now.")


class KeySetOut(BaseModel):
    """The keys that access tokens are signed with (RFC 7517)."""

    model_config = example(KEY_SET_EXAMPLE)

    keys: list[dict[str, str]]


def get_client(request: Request, runtime: RuntimeDep) -> Client:
    """Where the request comes from: forwarded addresses count from trusted proxies only."""
    address = client_address(request.scope, runtime.settings.api.trusted_proxies)
    return Client(address, request.headers.get("user-agent"))


ClientDep = Annotated[Client, Depends(get_client)]


def read_tokens(tokens: Tokens) -> TokensOut:
    return TokensOut(
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token,
        expires_in=int(tokens.expires_in.total_seconds()),
    )


def read_me(user: User, who: Principal) -> MeOut:
    account = AccountOut.model_validate(user)
    return MeOut(**account.model_dump(), tenant_id=who.tenant_id, roles=sorted(who.roles))


def read_session(session: Session, who: Principal) -> SessionOut:
    return SessionOut(
        id=session.id,
        created_at=session.created_at,
        refreshed_at=session.rotated_at,
        expires_at=min(session.idle_expires_at, session.expires_at),
        address=session.address,
        user_agent=session.user_agent,
        is_current=session.id == who.session_id,
    )


@router.post(
    "/v1/auth/register",
    tags=["auth"],
    status_code=201,
    responses=documented(EmailTaken, EmailInvalid, PasswordRefused, SignInThrottled, HashingBusy),
)
async def register(
    accounts: AccountsDep, client: ClientDep, registration: Registration, response: Response
) -> AccountOut:
    """Make an account, with a personal tenant that it owns.

    The e-mail address identifies the person in any letter case and spelling. A password has at
    least 15 characters, is none of those that are guessed first, and does not live off the person's
    own name or address.
    """
    user = await register_account(accounts, registration, client)
    response.headers["Location"] = "/v1/me"
    return AccountOut.model_validate(user)


@router.post(
    "/v1/auth/login",
    tags=["auth"],
    responses=documented(SignInFailed, SignInThrottled, HashingBusy),
)
async def login(accounts: AccountsDep, client: ClientDep, credentials: Credentials) -> TokensOut:
    """Sign in.

    An unknown address and a wrong password are answered alike. After too many failures, of the
    account or from the client's address, the answer is 429 until the time in `Retry-After`.
    """
    return read_tokens(await sign_in(accounts, credentials, client))


@router.post("/v1/auth/refresh", tags=["auth"], responses=documented(RefreshRefused))
async def refresh(accounts: AccountsDep, grant: RefreshGrant) -> TokensOut:
    """Exchange a refresh token for a new pair.

    Each refresh token is good once. For 30 seconds after that it gets the same successor again, for
    clients that refresh twice at the same moment. If it is used later still, somebody else may hold
    it: the session ends.
    """
    return read_tokens(await exchange(accounts, grant.refresh_token.get_secret_value()))


@router.post(
    "/v1/auth/logout",
    tags=["auth"],
    status_code=204,
    openapi_extra={"security": [{"access_token": []}, {}]},
    responses=documented(TokenMissing),
)
async def logout(
    request: Request,
    accounts: AccountsDep,
    grant: Annotated[RefreshGrant | None, Body(openapi_examples=LOGOUT_EXAMPLES)] = None,
) -> None:
    """End the session.

    Its access tokens are refused at once here and within a second on every other process. A client
    whose access token has expired sends the refresh token instead, or both; whether the refresh
    token was still good is not said. Of tokens of two sessions both sessions end.
    """
    try:
        principal = await principal_of(accounts, request)
    except Unauthenticated:
        if grant is None:
            raise
        principal = None
    if principal is None and grant is None:
        raise TokenMissing("Send the access token, or the refresh token in the body.")
    if grant is not None:
        await sessions.logout_by_refresh_token(accounts, grant.refresh_token.get_secret_value())
    if principal is not None:
        await sessions.logout(accounts, principal)


@router.get("/.well-known/jwks.json", tags=["auth"])
async def read_key_set(accounts: AccountsDep, response: Response) -> KeySetOut:
    """Read the public keys that access tokens are signed with."""
    response.headers["Cache-Control"] = KEY_SET_CACHE
    return KeySetOut.model_validate(await accounts.keyring.key_set())


@router.get("/v1/me", tags=["me"])
async def get_me(session: ReadSessionDep, principal: PrincipalDep) -> MeOut:
    """Read one's own account."""
    return read_me(await profile.get_profile(session, principal), principal)


@router.patch("/v1/me", tags=["me"])
async def patch_me(session: SessionDep, principal: PrincipalDep, patch: ProfilePatch) -> MeOut:
    """Change one's own name."""
    return read_me(await profile.patch_profile(session, principal, patch), principal)


@router.delete(
    "/v1/me",
    tags=["me"],
    status_code=202,
    responses=documented(PasswordWrong, SignInThrottled, HashingBusy),
)
async def delete_me(
    accounts: AccountsDep, principal: PrincipalDep, proof: PasswordProof
) -> ErasureOut:
    """Erase one's account, which asks for the password and cannot be undone.

    At once: the profile, the memberships and every session are deleted, the e-mail address is free
    again, and the personal tenant's unfinished jobs are cancelled. A job of the platform then
    deletes the personal tenant: contacts, files with what is stored of them, and jobs. What belongs
    to a team stays with the team.
    """
    await erasure.erase_account(accounts, principal, proof.password.get_secret_value())
    return ErasureOut.model_validate(ERASURE_EXAMPLE)


@router.post(
    "/v1/me/password",
    tags=["me"],
    status_code=204,
    responses=documented(PasswordWrong, PasswordRefused, SignInThrottled, HashingBusy),
)
async def change_password(
    accounts: AccountsDep, principal: PrincipalDep, change: PasswordChange
) -> None:
    """Change one's password, which ends every other session.

    A notice of it is mailed to the account's address.
    """
    await profile.change_password(accounts, principal, change)


@router.get("/v1/me/sessions", tags=["me"])
async def list_sessions(
    session: ReadSessionDep, principal: PrincipalDep, runtime: RuntimeDep, page: PageDep
) -> Listing[SessionOut]:
    """List where one is signed in, newest first."""
    found = await sessions.list_sessions(session, principal, page, now=runtime.clock.now())
    return Listing[SessionOut].of(found, lambda row: read_session(row, principal))


@router.get("/v1/me/sessions/{session_id:uuid}", tags=["me"], responses=documented(SessionNotFound))
async def get_session(
    session: ReadSessionDep, principal: PrincipalDep, runtime: RuntimeDep, session_id: UUID
) -> SessionOut:
    """Read one of one's sessions."""
    scope = sessions.visible(principal, runtime.clock.now())
    row = await crud.fetch(session, scope, session_id, missing=SessionNotFound)
    return read_session(row, principal)


@router.delete(
    "/v1/me/sessions/{session_id:uuid}",
    tags=["me"],
    status_code=204,
    responses=documented(SessionNotFound),
)
async def end_session(accounts: AccountsDep, principal: PrincipalDep, session_id: UUID) -> None:
    """End one of one's sessions; its tokens are refused within a second."""
    await sessions.end_session(accounts, principal, session_id)


@router.delete("/v1/me/sessions", tags=["me"], status_code=204)
async def end_all_sessions(accounts: AccountsDep, principal: PrincipalDep) -> None:
    """End all of one's sessions, this one too."""
    await sessions.end_all_sessions(accounts, principal)
