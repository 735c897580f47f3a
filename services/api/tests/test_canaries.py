"""Nothing that a client sends is seen in a log line, at DEBUG and in failures too.

A canary is put wherever a client can put something; then the lines are searched for it.
"""

import json
import logging
import re
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel
from sqlalchemy import insert, select, text
from toolchain import ROOT

from jangada.db import Database, new_id
from jangada.jobs.delivery.kinds import KindFacts
from jangada.jobs.delivery.workers import NewWorker, register
from jangada.jobs.models import Job
from jangada.runtime import Runtime
from jangada.telemetry import get_logger
from jangada.tenants.models import User
from jangada.testing import Person
from jangada_api.deps import RuntimeDep, SessionDep
from jangada_api.testing import LogLines, SignIn, work

pytestmark = pytest.mark.anyio

JWT = "eyJhbGciOiJFZERTQSIsImtpZCI6ImNhbmFyeSJ9.eyJzdWIiOiJjYW5hcnkifQ.canary-signature"
CANARY = "canary.person@example.org"
HEADERS = {
    "Authorization": f"Bearer {JWT}",
    "Cookie": "session=canary",
    "Referer": f"https://canary.example/?token={JWT}",
    "User-Agent": f"canary/1.0 ({CANARY})",
    "X-Api-Key": "canary",
    "X-Forwarded-For": "canary",
    "X-Request-ID": CANARY,
    "traceparent": "canary",
}
QUERY = {"cursor": "canary", "limit": "canary", "q": CANARY, "token": JWT, "state": "canary"}
BODY: dict[str, Any] = {
    "email": CANARY,
    "name": "canary",
    "password": "canary-Password-9!",
    "current_password": "canary-Password-9!",
    "new_password": "canary",
    "refresh_token": JWT,
    "canary": "canary",
}

SUCCESS = {
    (method.upper(), path): next(int(status) for status in operation["responses"])
    for path, item in json.loads((ROOT / "docs/openapi.json").read_text("utf-8"))["paths"].items()
    for method, operation in item.items()
}
OPERATIONS = list(SUCCESS)
PASSWORDS = ("canary birds sing at six", "canary birds sleep at nine")
FRIEND = {
    "name": "Canary",
    "email": "canary.friend@example.org",
    "phone": "(11) 98765-4321",
    "company": "Canary & Co",
    "attributes": {"canary": "=canary"},
}
FILE = (
    b"name,email,canary\nCanary,canary.one@example.org,x\nCanary,canary at example.org,y,canary\n"
)

router = APIRouter(prefix="/test")


class Secret(BaseModel):
    value: str


@router.post("/error/{where}")
async def fail(request: Request, secret: Secret, where: str) -> None:
    raise RuntimeError(f"{secret.value} {where} {request.headers} {request.query_params}")


@router.post("/sql/{statement}")
async def sql(session: SessionDep, secret: Secret, statement: str) -> None:
    """Errors whose report by PostgreSQL quotes the value."""
    statements: dict[str, Any] = {
        "syntax": text(f"SELECT '{secret.value}' FROM"),
        "cast": select(Job).where(text("CAST(:v AS uuid) IS NULL").bindparams(v=secret.value)),
        "unique": insert(User).values(
            id=new_id(), email=secret.value, email_key="taken", name=secret.value
        ),
        "raise": text(f"DO $$ BEGIN RAISE EXCEPTION '{secret.value}'; END $$"),
    }
    await session.execute(statements[statement])


@router.post("/direct")
async def direct(runtime: RuntimeDep, secret: Secret) -> None:
    async with runtime.database.direct() as connection:
        await connection.execute("SELECT %s::int", (secret.value,))


@router.post("/logs")
async def careless(secret: Secret) -> None:
    """Code that logs what it should not."""
    log = get_logger("jangada_api.careless")
    log.info("signed in", password=secret.value, email=secret.value, body={"x": secret.value})
    log.info(f"mail to {CANARY} with {JWT}", secret=secret)  # noqa: G004 - careless
    log.warning("failed", error=ValueError(secret.value))
    logging.getLogger("library").warning("refused %s: %s", JWT, ValueError(secret.value))


@pytest.fixture(autouse=True)
async def routes(app: FastAPI, database: Database) -> None:
    app.include_router(router)
    async with database.system_transaction("test data") as session:
        session.add(User(id=new_id(), email="x", email_key="taken", name="x"))


def lines_without_canary(log_lines: LogLines) -> list[dict[str, Any]]:
    written = log_lines.text()
    assert "canary" not in written.lower()
    return [json.loads(line) for line in written.splitlines()]


@pytest.mark.parametrize("is_signed_in", [True, False])
async def test_no_route_logs_what_it_was_sent(
    *,
    client: httpx.AsyncClient,
    person: Person,
    sign_in: SignIn,
    log_lines: LogLines,
    is_signed_in: bool,
) -> None:
    for method, template in OPERATIONS:
        path = re.sub(r"{\w+}", str(UUID(int=1)), template)
        headers = HEADERS | (await sign_in(person) if is_signed_in else {})
        response = await client.request(method, path, params=QUERY, headers=headers, json=BODY)
        assert response.status_code < 500
    lines = lines_without_canary(log_lines)
    assert len([line for line in lines if line["event"] == "request"]) == len(OPERATIONS)


@dataclass
class Visitor:
    """Somebody who uses the API as it is meant to be used, with a canary in every word."""

    client: httpx.AsyncClient
    token: str = JWT
    grant: str = ""
    asked: set[tuple[str, str]] = field(default_factory=set)

    async def ask(
        self,
        operation: str,
        *,
        at: str = "",
        headers: dict[str, str] | None = None,
        **request: Any,  # noqa: ANN401 - as httpx takes it
    ) -> httpx.Response:
        """A request that succeeds; `at` is what the path names."""
        method, template = operation.split()
        sent = {**HEADERS, "Authorization": f"Bearer {self.token}", **(headers or {})}
        path = re.sub(r"{\w+}", at, template)
        answer = await self.client.request(method, path, headers=sent, **request)
        assert answer.status_code == SUCCESS[method, template], (operation, answer.text)
        self.asked.add((method, template))
        return answer

    async def sign_in(self, password: str) -> None:
        answer = await self.ask("POST /v1/auth/login", json={"email": CANARY, "password": password})
        self._take(answer.json())

    async def refresh(self) -> None:
        answer = await self.ask("POST /v1/auth/refresh", json={"refresh_token": self.grant})
        self._take(answer.json())

    def _take(self, tokens: dict[str, str]) -> None:
        self.token, self.grant = tokens["access_token"], tokens["refresh_token"]

    async def send_file(self) -> dict[str, Any]:
        headers = {
            "Content-Type": "text/csv",
            "Content-Disposition": 'attachment; filename="canary.csv"',
        }
        job: dict[str, Any] = (
            await self.ask("POST /v1/contacts/imports", headers=headers, content=FILE)
        ).json()
        return job


async def arrive(visitor: Visitor) -> None:
    new = {"email": CANARY, "name": "canary", "password": PASSWORDS[0]}
    await visitor.ask("POST /v1/auth/register", json=new)
    await visitor.sign_in(PASSWORDS[0])
    await visitor.refresh()
    await visitor.ask("GET /.well-known/jwks.json")
    await visitor.ask("GET /v1/me")
    await visitor.ask("PATCH /v1/me", json={"name": "Canary Bird"})


async def keep_contacts(visitor: Visitor) -> None:
    friend = (await visitor.ask("POST /v1/contacts", json=FRIEND)).json()
    made, known = friend["id"], {name: friend[name] for name in ("email", "phone", "company")}
    listed = await visitor.ask("GET /v1/contacts", params={**known, "q": "canary"})
    assert [each["id"] for each in listed.json()["data"]] == [made]
    await visitor.ask("GET /v1/contacts/{contact_id}", at=made)
    changes = {"name": "Canary II", "attributes": {"canary": "canary"}}
    await visitor.ask("PATCH /v1/contacts/{contact_id}", at=made, json=changes)
    exported = await visitor.ask("GET /v1/contacts:export", params={"q": "canary"})
    assert "Canary II" in exported.text
    await visitor.ask("DELETE /v1/contacts/{contact_id}", at=made)


async def import_contacts(visitor: Visitor, runtime: Runtime) -> None:
    await visitor.ask(
        "POST /v1/contacts/imports:preview",
        headers={"Content-Type": "text/csv"},
        params={"delimiter": ","},
        content=FILE,
    )
    job = await visitor.send_file()
    async with runtime.database.system_transaction("test") as session:
        tenant_id = (await session.scalars(select(Job.tenant_id))).one()
    await work(runtime, tenant_id, job)
    found = await visitor.ask("GET /v1/contacts/imports/{import_id}", at=job["id"])
    assert found.json()["statistics"]["inserted"] == 1
    rejects = await visitor.ask("GET /v1/contacts/imports/{import_id}/rejects", at=job["id"])
    assert "canary at example.org" in rejects.text
    await visitor.ask("GET /v1/jobs", params={"kind": "contacts.import", "queue": "canary"})
    await visitor.ask("GET /v1/jobs/{job_id}", at=job["id"])
    await visitor.ask(
        "GET /v1/jobs/{job_id}/events", at=job["id"], headers={"Last-Event-ID": "canary"}
    )
    other = (await visitor.send_file())["id"]
    await visitor.ask("POST /v1/jobs/{job_id}:cancel", at=other)
    await visitor.ask("POST /v1/jobs/{job_id}:retry", at=other)
    await visitor.ask("POST /v1/jobs:redrive", json={"tag": CANARY, "error_code": CANARY})
    await visitor.ask("DELETE /v1/contacts/imports/{import_id}", at=job["id"])


async def keep_schedules(visitor: Visitor, runtime: Runtime) -> None:
    facts = [KindFacts("canary", "default", 1, is_schedulable=True)]
    worker = NewWorker(new_id(), "pod", "host", 1, "0", ["default"], 1, facts)
    async with runtime.database.direct() as connection:
        await register(connection, worker)
    new = {"name": "canary", "cron": "@yearly", "kind": "canary", "args": {"canary": "canary"}}
    made = (await visitor.ask("POST /v1/schedules", json=new)).json()["id"]
    await visitor.ask("GET /v1/schedules", params={"kind": "canary"})
    await visitor.ask("GET /v1/schedules/{schedule_id}", at=made)
    changes = {"name": "canary II", "concurrency_key": "canary"}
    await visitor.ask("PATCH /v1/schedules/{schedule_id}", at=made, json=changes)
    for verb in ("pause", "resume", "run"):
        await visitor.ask(f"POST /v1/schedules/{{schedule_id}}:{verb}", at=made)
    await visitor.ask("DELETE /v1/schedules/{schedule_id}", at=made)


async def leave(visitor: Visitor) -> None:
    listed = await visitor.ask("GET /v1/me/sessions")
    other = next(each["id"] for each in listed.json()["data"] if not each["is_current"])
    await visitor.ask("GET /v1/me/sessions/{session_id}", at=other)
    await visitor.ask("DELETE /v1/me/sessions/{session_id}", at=other)
    old, new = PASSWORDS
    change = {"current_password": old, "new_password": new}
    await visitor.ask("POST /v1/me/password", json=change)
    await visitor.ask("POST /v1/auth/logout", json={"refresh_token": visitor.grant})
    await visitor.sign_in(new)
    await visitor.ask("DELETE /v1/me/sessions")
    await visitor.sign_in(new)
    await visitor.ask("DELETE /v1/me", json={"password": new})


async def test_no_route_logs_what_it_does_as_it_was_asked(
    client: httpx.AsyncClient, runtime: Runtime, log_lines: LogLines
) -> None:
    visitor = Visitor(client)
    await arrive(visitor)
    await keep_contacts(visitor)
    await import_contacts(visitor, runtime)
    await keep_schedules(visitor, runtime)
    await visitor.sign_in(PASSWORDS[0])
    await leave(visitor)
    assert visitor.asked == set(OPERATIONS)
    lines_without_canary(log_lines)


async def test_registering_and_signing_in_log_neither_address_nor_password(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    password = "canary birds sing at six"
    person = {"email": CANARY, "password": password}
    statuses = []
    for path, body in [
        ("register", person | {"name": "canary"}),
        ("register", person | {"name": "canary"}),
        ("register", person | {"name": "canary", "password": "canary.person"}),
        ("login", person),
        ("login", person | {"password": "canary"}),
        ("refresh", {"refresh_token": JWT}),
    ]:
        response = await client.post(f"/v1/auth/{path}", json=body)
        statuses.append(response.status_code)
    assert statuses == [201, 409, 422, 200, 401, 401]
    lines_without_canary(log_lines)


async def test_changing_the_password_logs_and_queues_neither_address_nor_password(
    client: httpx.AsyncClient, database: Database, log_lines: LogLines
) -> None:
    old, new = "canary birds sing at six", "canary birds sing at nine"
    person = {"email": CANARY, "name": "canary", "password": old}
    await client.post("/v1/auth/register", json=person)
    answer = await client.post("/v1/auth/login", json={"email": CANARY, "password": old})
    changed = await client.post(
        "/v1/me/password",
        json={"current_password": old, "new_password": new},
        headers={"Authorization": f"Bearer {answer.json()['access_token']}"},
    )
    assert changed.status_code == 204
    lines_without_canary(log_lines)
    async with database.system_transaction("test") as session:
        queued = (await session.execute(text("SELECT to_jsonb(jobs) FROM jobs"))).scalars().all()
    assert len(queued) == 1
    assert "canary" not in str(queued).lower()


@pytest.mark.parametrize(
    "path",
    [
        "/test/error/canary",
        "/test/sql/syntax",
        "/test/sql/cast",
        "/test/sql/unique",
        "/test/sql/raise",
        "/test/direct",
    ],
)
async def test_no_failure_logs_what_it_was_sent(
    caller: httpx.AsyncClient, log_lines: LogLines, path: str
) -> None:
    headers = HEADERS | {"Authorization": caller.headers["Authorization"]}
    response = await caller.post(path, params=QUERY, headers=headers, json={"value": CANARY})
    assert response.status_code in {409, 500}
    assert "canary" not in response.text
    lines = lines_without_canary(log_lines)
    assert lines[-1]["status"] == response.status_code


async def test_careless_code_logs_it_neither(
    caller: httpx.AsyncClient, log_lines: LogLines
) -> None:
    response = await caller.post("/test/logs", json={"value": "canary-Password-9!"})
    assert response.status_code == 200
    assert len(lines_without_canary(log_lines)) == 5


async def test_malformed_bodies_are_not_logged(
    caller: httpx.AsyncClient, log_lines: LogLines
) -> None:
    for body in (b'{"value": "canary', b"canary", b'["canary"]', b'{"value": "canary\xff"}'):
        headers = {"Content-Type": "application/json"}
        await caller.post("/test/logs", content=body, headers=headers)
    lines_without_canary(log_lines)
