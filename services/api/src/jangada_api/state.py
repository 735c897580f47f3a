"""What all requests of a process share, as dependencies: opened by the lifespan, never a global.

Kept apart from `deps` so that what `deps` is made of (`principal`) can ask for it too.
"""

from typing import Annotated

from fastapi import Depends, Request

from jangada.accounts.runtime import Accounts
from jangada.runtime import Runtime


def get_runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def get_accounts(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]
AccountsDep = Annotated[Accounts, Depends(get_accounts)]
