"""Imports over HTTP: what is accepted, what is refused unread, and what one learns of them."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.types import Message

from jangada.config import Settings, StorageSettings
from jangada.db import new_id
from jangada.runtime import Runtime, open_runtime
from jangada.testing import Person, make_person
from jangada_api.app import create_app
from jangada_api.testing import SignIn, connect, work

pytestmark = pytest.mark.anyio

PATH = "/v1/contacts/imports"
CSV = "nome;e-mail;telefone\nAna;ana@example.com;(11) 98765-4321\nRui;rui at example.com;\n"

type Start = Callable[..., Awaitable[dict[str, Any]]]


async def start(client: httpx.AsyncClient, content: str = CSV, **query: str) -> dict[str, Any]:
    """Send a file as a form; answers the job."""
    answer = await client.post(PATH, files={"file": ("c.csv", content, "text/csv")}, params=query)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    return job


async def test_a_form_becomes_an_import_with_its_job(
    caller: httpx.AsyncClient, person: Person
) -> None:
    job = await start(caller, delimiter="semicolon", on_conflict="skip")
    assert (job["kind"], job["queue"], job["state"]) == ("contacts.import", "imports", "available")
    assert (await caller.get(f"/v1/jobs/{job['id']}")).json()["id"] == job["id"]
    found = (await caller.get(f"{PATH}/{job['id']}")).json()
    assert found == {
        "id": job["id"],
        "file_name": "c.csv",
        "state": "available",
        "progress": None,
        "statistics": None,
        "errors": [],
        "encoding": None,
        "delimiter": None,
        "options": {
            "delimiter": ";",
            "encoding": None,
            "mapping": None,
            "default_region": "BR",
            "on_conflict": "skip",
            "validate_only": False,
        },
        "created_at": found["created_at"],
        "started_at": None,
        "finished_at": None,
    }


async def test_a_raw_body_is_taken_as_the_file(
    caller: httpx.AsyncClient, runtime: Runtime, person: Person
) -> None:
    headers = {"Content-Type": "text/csv", "Content-Disposition": 'attachment; filename="r.csv"'}
    answer = await caller.post(PATH, content=CSV.encode(), headers=headers)
    assert answer.status_code == 202
    await work(runtime, person.tenant_id, answer.json())
    found = (await caller.get(f"{PATH}/{answer.json()['id']}")).json()
    assert (found["file_name"], found["state"]) == ("r.csv", "completed")


async def test_the_journey_from_file_to_corrected_rejects(
    caller: httpx.AsyncClient, runtime: Runtime, person: Person
) -> None:
    job = await start(caller)
    await work(runtime, person.tenant_id, job)
    found = (await caller.get(f"{PATH}/{job['id']}")).json()
    statistics = found["statistics"]
    assert statistics.pop("seconds") > 0
    assert statistics == {
        "rows": 2,
        "inserted": 1,
        "updated": 0,
        "unchanged": 0,
        "skipped": 0,
        "duplicates": 0,
        "rejected": 1,
        "rejected_by_reason": {"invalid_email": 1},
    }
    assert (found["state"], found["encoding"], found["delimiter"]) == ("completed", "utf-8", ";")
    assert found["progress"] == {"done": 2, "total": 2}
    assert (await caller.get(f"/v1/jobs/{job['id']}")).json()["result"] == {
        **statistics,
        "seconds": (await caller.get(f"/v1/jobs/{job['id']}")).json()["result"]["seconds"],
    }
    rejects = await caller.get(f"{PATH}/{job['id']}/rejects")
    assert rejects.headers["content-disposition"] == 'attachment; filename="rejects.csv"'
    assert rejects.text == (
        "_line,_column,_reason,nome,e-mail,telefone\r\n"
        "3,e-mail,invalid_email,Rui,rui at example.com,\r\n"
    )
    corrected = await start(caller, rejects.text.replace(" at ", "@"))
    await work(runtime, person.tenant_id, corrected)
    names = [each["name"] for each in (await caller.get("/v1/contacts")).json()["data"]]
    assert names == ["Rui", "Ana"]
    export = (await caller.get("/v1/contacts:export")).text
    again = await start(caller, export)
    await work(runtime, person.tenant_id, again)
    result = (await caller.get(f"/v1/jobs/{again['id']}")).json()["result"]
    assert (result["rows"], result["unchanged"]) == (2, 2)


async def test_options_reach_the_import(
    caller: httpx.AsyncClient, runtime: Runtime, person: Person
) -> None:
    mapping = json.dumps(
        {"Correo": "email", "Móvil": "phone", "Interno": None, "email": "attribute"}
    )
    job = await start(
        caller,
        "Correo|Móvil|Interno|email\na@b.co|912 345 678|x|y\n",
        mapping=mapping,
        delimiter="|",
        encoding="UTF-8",
        default_region="PT",
    )
    await work(runtime, person.tenant_id, job)
    contact = (await caller.get("/v1/contacts")).json()["data"][0]
    assert (contact["email"], contact["phone"]) == ("a@b.co", "+351912345678")
    assert contact["attributes"] == {"email": "y"}


async def test_validating_only_changes_nothing(
    caller: httpx.AsyncClient, runtime: Runtime, person: Person
) -> None:
    job = await start(caller, validate_only="true")
    await work(runtime, person.tenant_id, job)
    statistics = (await caller.get(f"{PATH}/{job['id']}")).json()["statistics"]
    assert (statistics["inserted"], statistics["rejected"]) == (1, 1)
    assert (await caller.get("/v1/contacts")).json()["data"] == []
    assert (await caller.get(f"{PATH}/{job['id']}/rejects")).text.count("\n") == 2


@pytest.mark.parametrize(
    ("query", "code", "pointer"),
    [
        ({"delimiter": "x"}, "import_file.unknown_delimiter", "?delimiter"),
        ({"encoding": "klingon"}, "import_file.unknown_encoding", "?encoding"),
        ({"mapping": "{"}, "import_file.unknown_mapping", "?mapping"),
        ({"mapping": '{"a": "fax"}'}, "import_file.unknown_mapping", "?mapping"),
        ({"mapping": "[]"}, "import_file.unknown_mapping", "?mapping"),
        ({"mapping": '{"\\u0000": "email"}'}, "import_file.unknown_mapping", "?mapping"),
        ({"default_region": ""}, "import_file.unknown_region", "?default_region"),
        ({"default_region": "XX"}, "import_file.unknown_region", "?default_region"),
        ({"on_conflict": "merge"}, "request.invalid", "?on_conflict"),
        ({"validate_only": "perhaps"}, "request.invalid", "?validate_only"),
    ],
)
@pytest.mark.parametrize("path", [PATH, f"{PATH}:preview"])
async def test_wrong_options_are_refused_before_the_file(
    *, caller: httpx.AsyncClient, path: str, query: dict[str, str], code: str, pointer: str
) -> None:
    answer = await caller.post(path, files={"file": CSV}, params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert "fax" not in query.get("mapping", "") or "Not so: 'a'." in answer.json()["detail"]


class Body:
    """A request's body that counts what is asked of it."""

    def __init__(self) -> None:
        self.asked = 0

    async def receive(self) -> Message:
        self.asked += 1
        return {"type": "http.request", "body": CSV.encode(), "more_body": False}


async def send_raw(app: FastAPI, headers: dict[str, str]) -> tuple[int, dict[str, Any], int]:
    """Status, problem document, and how often the body was asked for."""
    body, sent = Body(), list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("203.0.113.7", 40000),
        "server": ("api.test", 80),
        "app": app,
    }
    await app(scope, body.receive, send)
    status = next(each["status"] for each in sent if each["type"] == "http.response.start")
    answer = b"".join(each.get("body", b"") for each in sent)
    return status, json.loads(answer), body.asked


def stored(settings: Settings) -> list[Path]:
    root = Path(settings.storage.url.removeprefix("file://"))
    return [path for path in root.rglob("*") if path.is_file()]


async def nothing_stored(runtime: Runtime) -> bool:
    async with runtime.database.system_transaction("test") as session:
        counts = await session.scalar(
            text(
                "SELECT (SELECT count(*) FROM files) + (SELECT count(*) FROM jobs)"
                " + (SELECT count(*) FROM contact_imports)"
            )
        )
    return counts == 0 and stored(runtime.settings) == []


@pytest.mark.parametrize("is_swept", [False, True])
async def test_who_is_signed_out_while_they_send_imports_nothing(
    *, caller: httpx.AsyncClient, runtime: Runtime, is_swept: bool
) -> None:
    """Also where an erasure has removed what had come: the storage works."""

    async def content() -> AsyncIterator[bytes]:
        yield CSV.encode() * 20_000
        assert stored(runtime.settings)
        ended = await caller.delete("/v1/me/sessions")
        assert ended.status_code == 204
        if is_swept:
            for part in stored(runtime.settings):
                part.unlink()
        yield CSV.encode()

    answer = await caller.post(PATH, content=content(), headers={"Content-Type": "text/csv"})
    assert (answer.status_code, answer.json()["code"]) == (401, "auth.session_ended")
    assert await nothing_stored(runtime)


@pytest.mark.parametrize("token", [None, "Bearer forged", "Basic YTpi"])
async def test_without_a_session_not_a_byte_is_read(
    app: FastAPI, runtime: Runtime, token: str | None
) -> None:
    headers = {"Content-Type": "text/csv", "Content-Length": "60"}
    headers |= {"Authorization": token} if token else {}
    status, problem, asked = await send_raw(app, headers)
    assert (status, problem["status"], asked) == (401, 401, 0)
    assert await nothing_stored(runtime)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "application/json"}, 415, "request.unsupported_media_type"),
        ({"Content-Type": "text/csv", "Content-Length": "99999999999"}, 413, "request.too_large"),
    ],
)
async def test_what_the_headers_rule_out_is_not_read(
    *,
    app: FastAPI,
    runtime: Runtime,
    person: Person,
    sign_in: SignIn,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    answered, problem, asked = await send_raw(app, headers | await sign_in(person))
    assert (answered, problem["code"], asked) == (status, code, 0)
    assert await nothing_stored(runtime)


@pytest.mark.parametrize(
    ("limits", "status", "code"),
    [
        ({"max_stored_bytes_per_tenant": 1_024}, 409, "file.quota_exceeded"),
        ({"max_uploads_per_tenant": 1}, 429, "file.too_many_uploads"),
    ],
)
async def test_a_spent_quota_is_told_before_a_byte_is_read(
    *, settings: Settings, person: Person, limits: dict[str, int], status: int, code: str
) -> None:
    storage = StorageSettings(url=settings.storage.url, **limits)
    async with open_runtime(settings.model_copy(update={"storage": storage})) as runtime:
        async with runtime.database.transaction(person.tenant_id) as session:
            await session.execute(
                text(
                    "INSERT INTO files (tenant_id, id, state, size_bytes, blob_key,"
                    " lease_expires_at) VALUES (:tenant, :id, 'uploading', 1024, 'x',"
                    " now() + interval '1 hour')"
                ),
                {"tenant": person.tenant_id, "id": new_id()},
            )
        app = create_app(runtime.settings, runtime=runtime)
        async with app.router.lifespan_context(app):
            headers = await _signed_in(app, person)
            answered, problem, asked = await send_raw(
                app, headers | {"Content-Type": "text/csv", "Content-Length": "60"}
            )
    assert (answered, problem["code"], asked) == (status, code, 0)


async def _signed_in(app: FastAPI, person: Person) -> dict[str, str]:
    from jangada_api import testing  # noqa: PLC0415 - its fixture works for one application only

    headers: dict[str, str] = await testing.sign_in.__wrapped__(app)(person)  # type: ignore[attr-defined]
    return headers


async def test_a_failed_import_says_why(
    caller: httpx.AsyncClient, runtime: Runtime, person: Person
) -> None:
    job = await start(caller, "just a line\n")
    async with runtime.database.transaction(person.tenant_id) as session:
        error = json.dumps(
            [
                {
                    "attempt": 1,
                    "at": "2026-03-01T12:00:00Z",
                    "code": "import_file.no_header",
                    "detail": "no header",
                }
            ]
        )
        await session.execute(
            text("UPDATE jobs SET state = 'discarded', attempt = 1, errors = :errors"),
            {"errors": error},
        )
    found = (await caller.get(f"{PATH}/{job['id']}")).json()
    assert (found["state"], found["statistics"]) == ("discarded", None)
    assert [each["code"] for each in found["errors"]] == ["import_file.no_header"]
    assert (await caller.get(f"{PATH}/{job['id']}/rejects")).text == "_line,_column,_reason\r\n"
    assert (await caller.delete(f"{PATH}/{job['id']}")).status_code == 204
    assert (await caller.get(f"{PATH}/{job['id']}")).status_code == 404


async def test_an_import_under_way_has_no_rejects_and_cannot_be_deleted(
    caller: httpx.AsyncClient,
) -> None:
    job = await start(caller)
    answer = await caller.delete(f"{PATH}/{job['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "contact_import.under_way")
    answer = await caller.get(f"{PATH}/{job['id']}/rejects")
    assert (answer.status_code, answer.json()["code"]) == (409, "contact_import.under_way")
    assert (await caller.post(f"/v1/jobs/{job['id']}:cancel")).status_code == 200
    assert (await caller.delete(f"{PATH}/{job['id']}")).status_code == 204


async def test_imports_of_others_are_not_to_be_had(
    app: FastAPI, caller: httpx.AsyncClient, runtime: Runtime, sign_in: SignIn
) -> None:
    job = await start(caller)
    bia = await make_person(runtime.database, "Bia")
    async with connect(app, headers=await sign_in(bia)) as other:
        answers = [
            await other.get(f"{PATH}/{job['id']}"),
            await other.get(f"{PATH}/{job['id']}/rejects"),
            await other.delete(f"{PATH}/{job['id']}"),
            await other.get(f"/v1/jobs/{job['id']}"),
        ]
    assert [answer.status_code for answer in answers] == [404] * 4


async def test_a_preview_shows_dialect_columns_and_first_rows(
    caller: httpx.AsyncClient, runtime: Runtime
) -> None:
    content = "sep=;\r\nNome;E-mail;Endereço\r\nJosé;jose@example.com;Rua 1\r\n;rui;\r\n"
    body = content.encode("windows-1252")
    answer = await caller.post(f"{PATH}:preview", files={"file": ("c.csv", body, "text/csv")})
    assert answer.status_code == 200
    assert answer.json() == {
        "encoding": "windows-1252",
        "delimiter": ";",
        "columns": [
            {"name": "Nome", "field": "name"},
            {"name": "E-mail", "field": "email"},
            {"name": "Endereço", "field": "attribute"},
        ],
        "rows": [
            {"line": 3, "cells": ["José", "jose@example.com", "Rua 1"]},
            {"line": 4, "cells": ["", "rui", ""]},
        ],
        "rejects": [{"line": 4, "column": "E-mail", "reason": "invalid_email"}],
        "has_more": False,
    }
    assert await nothing_stored(runtime)


async def test_a_preview_takes_the_options(caller: httpx.AsyncClient) -> None:
    answer = await caller.post(
        f"{PATH}:preview",
        content="a,b\nx,y@z.co\n",
        headers={"Content-Type": "text/csv"},
        params={"mapping": '{"b": "email", "a": null}'},
    )
    assert [each["field"] for each in answer.json()["columns"]] == ["ignore", "email"]


async def test_a_preview_of_a_long_file_needs_its_beginning_only(
    caller: httpx.AsyncClient,
) -> None:
    rows = "".join(f"Ana {n},a{n}@example.com\n" for n in range(60_000))
    answer = await caller.post(f"{PATH}:preview", files={"file": f"name,email\n{rows}"})
    assert len(answer.json()["rows"]) == 20
    assert answer.json()["has_more"] is True
    for rows_first in (1, 20, 40):
        long_cells = "name,email\n" + f'"{"x" * 9_000}\n",a@b.co\n' * rows_first
        content = long_cells + '"' + "y\n" * 100_000 * 2
        cut = await caller.post(f"{PATH}:preview", files={"file": content})
        assert cut.status_code == 200
        assert len(cut.json()["rows"]) == min(rows_first, 20)
        assert cut.json()["has_more"] is True


@pytest.mark.parametrize(("rows", "has_more"), [(1, False), (20, False), (21, True)])
async def test_a_preview_says_whether_the_file_goes_on(
    caller: httpx.AsyncClient, rows: int, *, has_more: bool
) -> None:
    file = "email\n" + "a@b.co\n" * rows + "\n\n"
    found = (await caller.post(f"{PATH}:preview", files={"file": file})).json()
    assert (len(found["rows"]), found["has_more"]) == (min(rows, 20), has_more)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "import_file.empty"),
        (b"PK\x03\x04", "import_file.not_text"),
        (b"Ana,ana@b.co\n", "import_file.no_header"),
        (b'email\n"a@b.co\n', "import_file.unbalanced_quote"),
        (b"email\n\0\n", "import_file.nul_byte"),
    ],
)
async def test_a_preview_says_what_is_wrong_with_the_file(
    caller: httpx.AsyncClient, content: bytes, code: str
) -> None:
    answer = await caller.post(f"{PATH}:preview", files={"file": ("c.csv", content)})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
