"""Schedules over HTTP."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from jangada.db import Database, new_id
from jangada.jobs.delivery.kinds import KindFacts
from jangada.jobs.delivery.workers import NewWorker, register
from jangada.runtime import Runtime
from jangada.testing import make_person
from jangada_api import schedules
from jangada_api.testing import SignIn

pytestmark = pytest.mark.anyio

NEW: dict[str, Any] = {
    "name": "every working day",
    "cron": "0 8 * * 1-5",
    "timezone": "America/Sao_Paulo",
    "kind": "test.open",
    "args": {"message": "good morning"},
}


@pytest.fixture
async def known(database: Database) -> None:
    """A worker that knows a kind which may be scheduled, and one which may not."""
    facts = [
        KindFacts("test.open", "default", 20, is_schedulable=True),
        KindFacts("test.closed", "default", 20),
    ]
    worker = NewWorker(new_id(), "pod", "host", 1, "0", ["default"], 4, facts)
    async with database.direct() as connection:
        await register(connection, worker)


async def create(caller: httpx.AsyncClient, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    answer = await caller.post("/v1/schedules", json={**NEW, **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/schedules/{found['id']}"
    return found


async def test_a_schedule_is_made_and_read(caller: httpx.AsyncClient, known: None) -> None:
    made = await create(caller)
    assert set(made) == set(schedules.EXAMPLE)
    assert {name: made[name] for name in NEW} == NEW
    assert (made["misfire"], made["is_paused"], made["last_fired_at"]) == ("once", False, None)
    read = await caller.get(f"/v1/schedules/{made['id']}")
    assert read.json() == made


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"cron": "61 * * * *"}, "schedule.invalid_cron"),
        ({"timezone": "Europe/Atlantis"}, "schedule.unknown_timezone"),
        ({"kind": "test.closed"}, "schedule.kind_not_schedulable"),
        ({"kind": "test.unknown"}, "schedule.kind_not_schedulable"),
        ({"args": {"x": "y" * 70_000}}, "job.too_large"),
        ({"misfire": "twice"}, "request.invalid"),
        ({"queue": "somewhere"}, "request.invalid"),
        ({"args": {"x": "\ud800"}}, "job.not_storable"),
        ({"name": "a\0b"}, "request.invalid"),
        ({"kind": "a\0b"}, "request.invalid"),
    ],
)
async def test_what_is_wrong_is_named(
    caller: httpx.AsyncClient, known: None, values: dict[str, Any], code: str
) -> None:
    body = json.dumps({**NEW, **values})
    headers = {"Content-Type": "application/json"}
    answer = await caller.post("/v1/schedules", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [f"/{next(iter(values))}"]


async def test_a_name_is_taken_once(caller: httpx.AsyncClient, known: None) -> None:
    await create(caller)
    answer = await caller.post("/v1/schedules", json=NEW)
    assert (answer.status_code, answer.json()["code"]) == (409, "schedule.exists")


async def test_a_tenant_may_have_so_many(
    caller: httpx.AsyncClient, known: None, runtime: Runtime
) -> None:
    most = runtime.settings.jobs.max_schedules
    for number in range(most):
        await create(caller, name=str(number))
    answer = await caller.post("/v1/schedules", json=NEW)
    assert (answer.status_code, answer.json()["code"]) == (409, "schedule.too_many")


async def test_a_schedule_is_changed(caller: httpx.AsyncClient, known: None) -> None:
    made = await create(caller)
    url = f"/v1/schedules/{made['id']}"
    changed = (await caller.patch(url, json={"cron": "30 * * * *", "misfire": "skip"})).json()
    assert (changed["cron"], changed["misfire"], changed["name"]) == (
        "30 * * * *",
        "skip",
        NEW["name"],
    )
    assert changed["next_at"] != made["next_at"]
    refused = await caller.patch(url, json={"cron": "nonsense"})
    assert refused.status_code == 422
    assert (await caller.get(url)).json() == changed


async def test_a_schedule_is_paused_and_resumed(caller: httpx.AsyncClient, known: None) -> None:
    made = await create(caller)
    url = f"/v1/schedules/{made['id']}"
    paused = (await caller.post(f"{url}:pause")).json()
    assert paused["is_paused"]
    assert (await caller.get("/v1/schedules", params={"is_paused": True})).json()["data"] == [
        paused
    ]
    resumed = (await caller.post(f"{url}:resume")).json()
    assert (resumed["is_paused"], resumed["paused_at"]) == (False, None)


async def test_a_schedule_is_run_now(caller: httpx.AsyncClient, known: None) -> None:
    made = await create(caller)
    answer = await caller.post(f"/v1/schedules/{made['id']}:run")
    assert answer.status_code == 202
    job = (await caller.get(answer.headers["Location"])).json()
    assert (job["kind"], job["state"], job["id"]) == ("test.open", "available", answer.json()["id"])
    after = (await caller.get(f"/v1/schedules/{made['id']}")).json()
    assert (after["last_job_id"], after["next_at"]) == (job["id"], made["next_at"])


async def test_a_deleted_schedule_is_not_found(caller: httpx.AsyncClient, known: None) -> None:
    made = await create(caller)
    url = f"/v1/schedules/{made['id']}"
    assert (await caller.delete(url)).status_code == 204
    assert (await caller.get(url)).json()["code"] == "schedule.not_found"


async def test_schedules_are_listed_newest_first_in_pages(
    caller: httpx.AsyncClient, known: None
) -> None:
    made = [(await create(caller, name=str(number)))["id"] for number in range(5)]
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2, "kind": "test.open"}
    while True:
        page = (await caller.get("/v1/schedules", params=params)).json()
        seen += [schedule["id"] for schedule in page["data"]]
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


async def test_schedules_of_others_are_not_there(
    caller: httpx.AsyncClient, known: None, sign_in: SignIn, database: Database
) -> None:
    made = await create(caller)
    url = f"/v1/schedules/{made['id']}"
    stranger = await sign_in(await make_person(database, "Bia"))
    answers = [
        await caller.get(url, headers=stranger),
        await caller.patch(url, headers=stranger, json={"name": "mine"}),
        await caller.delete(url, headers=stranger),
        *[
            await caller.post(f"{url}:{verb}", headers=stranger)
            for verb in ("pause", "resume", "run")
        ],
    ]
    assert [answer.json()["code"] for answer in answers] == ["schedule.not_found"] * 6
    assert (await caller.get("/v1/schedules", headers=stranger)).json()["data"] == []
    assert (await caller.get(url)).json() == made


async def test_what_does_not_exist_is_not_found(caller: httpx.AsyncClient) -> None:
    answer = await caller.get(f"/v1/schedules/{uuid4()}")
    assert (answer.status_code, answer.json()["code"]) == (404, "schedule.not_found")


async def test_schedules_need_a_signed_in_caller(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/schedules")).status_code == 401
