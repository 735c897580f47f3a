"""What routes ask for: the session of the request's transaction, the principal, the runtime.

Guarantee: one request is one transaction, committed **before** the answer is sent. FastAPI runs the
end of a `yield` dependency after the response by default, and a commit that failed then would still
have been answered 200; `scope="function"` moves it before the first byte. Streaming routes outlive
it, so they open short transactions of their own.
"""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from jangada_api.principal import PrincipalDep
from jangada_api.state import AccountsDep, RuntimeDep

__all__ = ["AccountsDep", "PrincipalDep", "ReadSessionDep", "RuntimeDep", "SessionDep"]


async def get_session(runtime: RuntimeDep, principal: PrincipalDep) -> AsyncIterator[AsyncSession]:
    """The transaction of the request, in the principal's tenant."""
    async with runtime.database.transaction(principal.tenant_id) as session:
        yield session


async def get_read_session(
    runtime: RuntimeDep, principal: PrincipalDep
) -> AsyncIterator[AsyncSession]:
    """As `get_session`, but PostgreSQL refuses writes in it."""
    async with runtime.database.read(principal.tenant_id) as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
ReadSessionDep = Annotated[AsyncSession, Depends(get_read_session, scope="function")]
