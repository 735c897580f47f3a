"""Who a request speaks for: the one place where an access token is read from a request.

Guarantees: the token comes from the `Authorization` header and from nowhere else (never from a
query, which logs keep, and not from a cookie: sessions for browsers come later); the tenant's and
the person's id are on every log line from here on.
"""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from jangada.accounts.errors import TokenInvalid, TokenMissing
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import Principal
from jangada.accounts.service.sign_in import authenticate
from jangada.telemetry import bind
from jangada_api.state import AccountsDep

bearer = HTTPBearer(
    scheme_name="access_token",
    bearerFormat="JWT",
    auto_error=False,
    description="An access token from `POST /v1/auth/login` or `POST /v1/auth/refresh`.",
)
"""Only for the OpenAPI document: the header is read by `bearer_token`, once and strictly."""


def bearer_token(request: Request) -> str | None:
    """The token of the `Authorization` header; None without one.

    Raises `TokenInvalid` for two headers, since proxies and servers differ in which one counts, and
    for another scheme.
    """
    headers = request.headers.getlist("authorization")
    if not headers:
        return None
    scheme, _, token = headers[0].strip().partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise TokenInvalid("The Authorization header must be `Bearer` and one access token.")
    return token.strip()


async def principal_of(accounts: Accounts, request: Request) -> Principal | None:
    """Who the request speaks for; None for a request without a token.

    Raises `TokenInvalid`, `TokenExpired` or `SessionEnded`.
    """
    token = bearer_token(request)
    if token is None:
        return None
    principal = await authenticate(accounts, token)
    bind(tenant_id=str(principal.tenant_id), user_id=str(principal.user_id))
    return principal


async def get_principal(
    request: Request, accounts: AccountsDep, _documented: Annotated[object, Depends(bearer)]
) -> Principal:
    """Raises `TokenMissing` besides the errors of `principal_of`."""
    principal = await principal_of(accounts, request)
    if principal is None:
        raise TokenMissing("Sign in and send the access token as `Authorization: Bearer …`.")
    return principal


PrincipalDep = Annotated[Principal, Depends(get_principal)]
