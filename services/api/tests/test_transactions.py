"""One request is one transaction, and its commit comes before the answer."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.config import Settings
from jangada.db import Database
from jangada.jobs.models import Job
from jangada.testing import Person
from jangada_api.app import create_app
from jangada_api.deps import ReadSessionDep, RuntimeDep, SessionDep, get_session
from jangada_api.testing import connect, open_session

pytestmark = pytest.mark.anyio

router = APIRouter(prefix="/test")


@router.post("/deferred/{number}")
async def insert_deferred(session: SessionDep, number: int) -> dict[str, str]:
    """The constraint speaks at the commit, after this function has returned its answer."""
    await session.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
    return {"answer": "all is well"}


@router.post("/write-in-read")
async def write_in_read(session: ReadSessionDep) -> None:
    await session.execute(text("INSERT INTO numbers VALUES (1)"))


@router.post("/fail/{number}")
async def insert_and_fail(session: SessionDep, number: int) -> None:
    await session.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
    raise ValueError


@router.get("/lost")
async def lose_connection(session: SessionDep, runtime: RuntimeDep) -> dict[str, str]:
    """PostgreSQL ends the connection between the statements and the commit."""
    pid = await session.scalar(text("SELECT pg_backend_pid()"))
    async with runtime.database.direct() as connection:
        await connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
    return {"answer": "all is well"}


async def get_session_late(
    session: Annotated[AsyncSession, Depends(get_session)],
) -> AsyncIterator[AsyncSession]:
    yield session


@router.post("/default-scope/{number}")
async def insert_with_the_default_scope(
    session: Annotated[AsyncSession, Depends(get_session_late)], number: int
) -> dict[str, str]:
    """What FastAPI does by default, and why `SessionDep` says otherwise."""
    await session.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
    return {"answer": "all is well"}


@pytest.fixture(autouse=True)
async def numbers(app: FastAPI, database: Database) -> None:
    app.include_router(router)
    async with database.system_transaction("test data") as session:
        await session.execute(
            text("CREATE TABLE numbers (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        )
        await session.execute(text("INSERT INTO numbers VALUES (7)"))


async def stored(database: Database) -> list[int]:
    async with database.system_transaction("test") as session:
        return list(await session.scalars(text("SELECT n FROM numbers ORDER BY n")))


async def test_a_commit_that_fails_is_not_answered_200(
    caller: httpx.AsyncClient, database: Database
) -> None:
    response = await caller.post("/test/deferred/7")
    assert response.status_code == 409
    assert response.json()["code"] == "resource.conflict"
    assert "all is well" not in response.text
    assert await stored(database) == [7]


async def test_a_commit_that_succeeds_is_durable_when_the_answer_comes(
    caller: httpx.AsyncClient, database: Database
) -> None:
    assert (await caller.post("/test/deferred/8")).status_code == 200
    assert await stored(database) == [7, 8]


async def test_a_connection_lost_before_the_commit_is_503(caller: httpx.AsyncClient) -> None:
    response = await caller.get("/test/lost")
    assert response.status_code == 503
    assert response.json()["code"] == "database.unavailable"


async def test_when_the_pool_is_full_the_answer_is_503_and_comes_soon(
    settings: Settings, person: Person
) -> None:
    small = {"pool_size": 1, "pool_timeout": timedelta(milliseconds=100)}
    database = settings.database.model_copy(update=small)
    app = create_app(settings.model_copy(update={"database": database}))
    async with app.router.lifespan_context(app):
        headers = await open_session(app, person)
        async with connect(app, headers=headers) as client:
            assert (await client.get("/v1/jobs")).status_code == 200
            async with app.state.runtime.database.read(person.tenant_id):
                response = await client.get("/v1/jobs")
            assert (await client.get("/v1/jobs")).status_code == 200
    assert (response.status_code, response.json()["code"]) == (503, "database.busy")
    assert response.headers["retry-after"] == "1"


async def test_without_the_scope_the_answer_would_have_lied(
    app: FastAPI, caller: httpx.AsyncClient
) -> None:
    """The trap itself: should FastAPI's default ever change, this says that the guard may go."""
    with pytest.raises(Exception, match="response already started"):
        await caller.post("/test/default-scope/7")


async def test_a_route_that_fails_leaves_nothing(
    caller: httpx.AsyncClient, database: Database
) -> None:
    assert (await caller.post("/test/fail/9")).status_code == 500
    assert await stored(database) == [7]


async def test_a_read_session_cannot_write(caller: httpx.AsyncClient, database: Database) -> None:
    assert (await caller.post("/test/write-in-read")).status_code == 500
    assert await stored(database) == [7]


async def test_the_session_is_in_the_tenant_of_the_principal(
    app: FastAPI, caller: httpx.AsyncClient, person: Person
) -> None:
    seen: list[UUID] = []

    @app.get("/test/tenant")
    async def tenant(session: ReadSessionDep) -> None:
        value = await session.scalar(text("SELECT current_setting('jangada.tenant_id')"))
        seen.append(UUID(value))
        assert list(await session.scalars(select(Job))) == []

    assert (await caller.get("/test/tenant")).status_code == 200
    assert seen == [person.tenant_id]
