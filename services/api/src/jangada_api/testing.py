"""Fixtures for tests of routes: the API on a runtime of the test's own, and callers of it.

Production never imports this. `services/api/tests/conftest.py` offers the fixtures to the tests.
"""

import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pytest
import structlog
from fastapi import FastAPI
from sqlalchemy import text

from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import Client
from jangada.accounts.service.issuing import issue, new_session
from jangada.config import Settings, TelemetrySettings
from jangada.contacts.importing import import_contacts
from jangada.contacts.schemas import ImportContacts
from jangada.jobs import service as jobs
from jangada.jobs.context import JobContext
from jangada.runtime import Runtime
from jangada.telemetry import configure_logging, unbind_all
from jangada.tenants.models import OWNER
from jangada.testing import Person
from jangada_api.app import create_app

type SignIn = Callable[[Person], Awaitable[dict[str, str]]]
type Connect = Callable[[FastAPI], httpx.AsyncClient]


@pytest.fixture
async def app(settings: Settings, runtime: Runtime) -> AsyncIterator[FastAPI]:
    """The whole API, started."""
    app = create_app(settings, runtime=runtime)
    async with app.router.lifespan_context(app):
        yield app


def connect(app: FastAPI, *, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    """A client that speaks to the application without a network between."""
    transport = httpx.ASGITransport(app, client=("203.0.113.7", 40000))
    return httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who is not signed in."""
    async with connect(app) as client:
        yield client


async def open_session(app: FastAPI, person: Person) -> dict[str, str]:
    """Open a session for a person: the headers of a signed-in request."""
    accounts: Accounts = app.state.accounts
    runtime, signer = accounts.runtime, await accounts.keyring.signer()
    async with runtime.database.transaction(person.tenant_id) as session:
        opened = new_session(
            runtime, user_id=person.user.id, tenant_id=person.tenant_id, client=Client()
        )
        session.add(opened)
    tokens = issue(runtime, signer, opened, [OWNER])
    return {"Authorization": f"Bearer {tokens.access_token}"}


@pytest.fixture
def sign_in(app: FastAPI) -> SignIn:
    """`open_session` of the fixture `app`."""
    return partial(open_session, app)


@pytest.fixture
async def caller(app: FastAPI, person: Person, sign_in: SignIn) -> AsyncIterator[httpx.AsyncClient]:
    """The person of the fixture `person`, signed in."""
    async with connect(app, headers=await sign_in(person)) as client:
        yield client


async def work(runtime: Runtime, tenant_id: UUID, job: dict[str, Any]) -> None:
    """What a worker does with the job of an import, as answered."""
    async with runtime.database.system_transaction("test") as session:
        await session.execute(text("UPDATE jobs SET state = 'running', attempt = attempt + 1"))
    async with runtime.database.read(tenant_id) as session:
        row = await jobs.get_job(session, tenant_id, UUID(job["id"]))
    context = JobContext(runtime, tenant_id, row.id, row.attempt, 20)
    await import_contacts(ImportContacts.model_validate(row.args), context)


class LogLines:
    """What was logged since the last look."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def text(self) -> str:
        return self._capture.readouterr().err

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def of(self, logger: str) -> list[dict[str, Any]]:
        return [line for line in self.all() if line["logger"] == logger]


@pytest.fixture
def log_lines(capsys: pytest.CaptureFixture[str]) -> Iterator[LogLines]:
    """Logging as in production, at DEBUG; as it was before afterwards."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, hooks = root.handlers[:], (sys.excepthook, threading.excepthook, sys.unraisablehook)
    levels = {
        name: logging.getLogger(name).level for name in ("", *logging.root.manager.loggerDict)
    }
    configure_logging(TelemetrySettings(log_level="DEBUG", log_format="json"), "jangada-api")
    yield LogLines(capsys)
    logging.captureWarnings(capture=False)
    structlog.configure(**before)
    root.handlers[:] = handlers
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    for name in logging.root.manager.loggerDict:
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
    root.setLevel(levels[""])
    unbind_all()
