"""Contacts over HTTP."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from jangada.runtime import Runtime
from jangada.testing import Person, make_person
from jangada_api.testing import SignIn, connect

pytestmark = pytest.mark.anyio

BLANK = "/attributes/\u3000"

ANA = {
    "name": "Ana Lima",
    "email": "Ana@Example.com",
    "phone": "(11) 98765-4321",
    "company": "=Acme",
    "attributes": {"Notes": "x"},
}

NOBODYS = "0198f3f0-0000-7000-8000-000000000000"


async def create(client: httpx.AsyncClient, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - of any field
    answer = await client.post("/v1/contacts", json=values)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/contacts/{made['id']}"
    return made


async def test_a_contact_lives_and_dies(caller: httpx.AsyncClient) -> None:
    made = await create(caller, **ANA)
    url = f"/v1/contacts/{made['id']}"
    assert made == {
        **ANA,
        "email": "ana@example.com",
        "phone": "+5511987654321",
        "id": made["id"],
        "created_at": made["created_at"],
        "updated_at": made["updated_at"],
    }
    assert (await caller.get(url)).json() == made
    changed = await caller.patch(url, json={"name": "Ana", "attributes": {"Notes": None}})
    assert changed.json()["name"] == "Ana"
    assert changed.json()["attributes"] == {}
    assert (await caller.get(url)).json() == changed.json()
    assert (await caller.delete(url)).status_code == 204
    for answer in (
        await caller.get(url),
        await caller.delete(url),
        await caller.patch(url, json={}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "contact.not_found")


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"name": "Ana"}, 422, "contact.invalid", ""),
        ({"email": "ana"}, 422, "contact.invalid", "/email"),
        ({"phone": "12"}, 422, "contact.invalid", "/phone"),
        ({"email": "a@b.co", "nickname": "A"}, 422, "request.invalid", "/nickname"),
        ({"email": "a@b.co", "name": "a\0b"}, 422, "request.invalid", "/name"),
        ({"email": "a@b.co", "attributes": {"\u3000": "x"}}, 422, "request.invalid", BLANK),
    ],
)
async def test_what_is_wrong_is_named(
    *, caller: httpx.AsyncClient, body: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    answer = await caller.post("/v1/contacts", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


async def test_a_key_that_is_taken_is_a_conflict(caller: httpx.AsyncClient) -> None:
    await create(caller, email="a@b.co")
    other = await create(caller, phone="11 98765-4321")
    answers = [
        await caller.post("/v1/contacts", json={"email": "A@B.CO"}),
        await caller.patch(f"/v1/contacts/{other['id']}", json={"email": "a@b.co"}),
    ]
    assert [answer.status_code for answer in answers] == [409, 409]
    assert {answer.json()["code"] for answer in answers} == {"contact.exists"}


async def test_lists_are_pages_that_can_be_searched(caller: httpx.AsyncClient) -> None:
    for number in range(5):
        await create(caller, name=f"Ana {number}", email=f"a{number}@b.co")
    await create(caller, name="Rui", email="rui@b.co", company="Acme")
    seen, query = [], {"q": "ana", "limit": "2"}
    while True:
        page = (await caller.get("/v1/contacts", params=query)).json()
        seen += [contact["name"] for contact in page["data"]]
        if not page["has_more"]:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == [f"Ana {number}" for number in reversed(range(5))]
    moved = await caller.get("/v1/contacts", params={**query, "q": "rui"})
    assert (moved.status_code, moved.json()["code"]) == (422, "page.invalid_cursor")
    filtered = await caller.get("/v1/contacts", params={"company": "Acme"})
    assert [contact["name"] for contact in filtered.json()["data"]] == ["Rui"]


async def test_an_export_is_a_file_without_formulas(caller: httpx.AsyncClient) -> None:
    await create(caller, **ANA)
    answer = await caller.get("/v1/contacts:export")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="contacts.csv"'
    assert answer.text == (
        "name,email,phone,company,Notes\r\nAna Lima,ana@example.com,+5511987654321,'=Acme,x\r\n"
    )
    none = await caller.get("/v1/contacts:export", params={"q": "zzz"})
    assert none.text == "name,email,phone,company\r\n"


async def test_nobody_sees_another_tenants_contacts(
    app: FastAPI, caller: httpx.AsyncClient, runtime: Runtime, sign_in: SignIn
) -> None:
    made = await create(caller, **ANA)
    bia = await make_person(runtime.database, "Bia")
    async with connect(app, headers=await sign_in(bia)) as other:
        url = f"/v1/contacts/{made['id']}"
        answers = [
            await other.get(url),
            await other.patch(url, json={"name": "x"}),
            await other.delete(url),
        ]
        assert [answer.status_code for answer in answers] == [404, 404, 404]
        assert (await other.get("/v1/contacts")).json()["data"] == []
        assert (await other.get("/v1/contacts:export")).text.count("\n") == 1
    assert (await caller.get(url)).json() == made


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/contacts"),
        ("POST", "/v1/contacts"),
        ("GET", "/v1/contacts:export"),
        ("GET", f"/v1/contacts/{NOBODYS}"),
        ("PATCH", f"/v1/contacts/{NOBODYS}"),
        ("DELETE", f"/v1/contacts/{NOBODYS}"),
        ("POST", "/v1/contacts/imports"),
        ("POST", "/v1/contacts/imports:preview"),
        ("GET", f"/v1/contacts/imports/{NOBODYS}"),
        ("DELETE", f"/v1/contacts/imports/{NOBODYS}"),
        ("GET", f"/v1/contacts/imports/{NOBODYS}/rejects"),
    ],
)
async def test_nothing_is_to_be_had_without_signing_in(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (401, "auth.token_missing")


async def test_a_person_alone_has_no_contacts(caller: httpx.AsyncClient, person: Person) -> None:
    assert (await caller.get("/v1/contacts")).json() == {
        "data": [],
        "has_more": False,
        "next_cursor": None,
    }
