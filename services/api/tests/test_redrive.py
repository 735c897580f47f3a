"""Dead letters over HTTP: found by filter, and run again some at a time."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select, update

from jangada.db import Database
from jangada.jobs import service
from jangada.jobs.models import Job, JobState
from jangada.jobs.schemas import JobArgs
from jangada.testing import Person, make_person

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Send(JobArgs):
    kind: ClassVar[str] = "test.send"


type Discard = Callable[..., Awaitable[UUID]]


@pytest.fixture
def discard(database: Database, person: Person) -> Discard:
    async def discard(
        *, tags: tuple[str, ...] = (), code: str = "job.failed", of: Person = person
    ) -> UUID:
        error = {"attempt": 1, "at": NOON.isoformat(), "code": code, "detail": "no"}
        async with database.transaction(of.tenant_id) as session:
            job = await service.enqueue(session, Send(), tenant_id=of.tenant_id, tags=tags)
            await session.execute(
                update(Job)
                .where(Job.id == job.id)
                .values(state=JobState.DISCARDED, finished_at=NOON, errors=[error])
            )
        return job.id

    return discard


async def count(database: Database, of: Person, state: JobState) -> int:
    async with database.read(of.tenant_id) as session:
        query = select(func.count()).select_from(Job).where(Job.state == state)
        return (await session.execute(query)).scalar_one()


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"tag": "vip"}, ["vip"]),
        ({"error_code": "service.unavailable"}, ["down"]),
        ({"since": "2026-03-01T12:00:00Z"}, ["down", "vip"]),
        ({"since": "2026-03-01T12:00:01Z"}, []),
        ({"until": "2026-03-01T09:00:00.001-03:00"}, ["down", "vip"]),
        ({"until": "2026-03-01T12:00:00Z"}, []),
    ],
)
async def test_lists_are_narrowed_by_tag_error_and_time(
    caller: httpx.AsyncClient, discard: Discard, params: dict[str, str], expected: list[str]
) -> None:
    made = {
        await discard(tags=("vip",)): "vip",
        await discard(code="service.unavailable"): "down",
    }
    found = (await caller.get("/v1/jobs", params={"state": "discarded", **params})).json()
    assert sorted(made[UUID(job["id"])] for job in found["data"]) == expected
    assert [job["tags"] for job in found["data"] if made[UUID(job["id"])] == "vip"] in (
        [["vip"]],
        [],
    )


async def test_a_redrive_is_bounded_and_says_whether_more_are_left(
    caller: httpx.AsyncClient, discard: Discard, database: Database, person: Person
) -> None:
    for _ in range(5):
        await discard(code="service.unavailable")
    await discard()
    body: dict[str, Any] = {"error_code": "service.unavailable", "limit": 3}
    first = (await caller.post("/v1/jobs:redrive", json=body)).json()
    assert (first["redriven"], first["has_more"]) == (3, True)
    assert datetime.now(UTC) - datetime.fromisoformat(first["until"]) < timedelta(minutes=1)
    second = await caller.post("/v1/jobs:redrive", json={**body, "until": first["until"]})
    assert second.json() == {"redriven": 2, "has_more": False, "until": first["until"]}
    again = await caller.post("/v1/jobs:redrive", json=body)
    assert (again.json()["redriven"], again.json()["has_more"]) == (0, False)
    assert await count(database, person, JobState.AVAILABLE) == 5
    assert await count(database, person, JobState.DISCARDED) == 1


async def test_an_empty_body_is_all_of_the_tenant_and_nobody_elses(
    caller: httpx.AsyncClient, discard: Discard, database: Database, person: Person
) -> None:
    other = await make_person(database, "Other")
    await discard()
    await discard(of=other)
    assert (await caller.post("/v1/jobs:redrive", json={})).json()["redriven"] == 1
    assert await count(database, person, JobState.AVAILABLE) == 1
    assert await count(database, other, JobState.DISCARDED) == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"limit": 0}, "/limit"),
        ({"limit": 1001}, "/limit"),
        ({"since": "2026-03-01T12:00:00"}, "/since"),
        ({"state": "completed"}, "/state"),
        ({"tag": "a\0"}, "/tag"),
    ],
)
async def test_a_wrong_filter_redrives_nothing(
    caller: httpx.AsyncClient,
    discard: Discard,
    database: Database,
    person: Person,
    *,
    body: dict[str, Any],
    pointer: str,
) -> None:
    await discard()
    answer = await caller.post("/v1/jobs:redrive", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert await count(database, person, JobState.DISCARDED) == 1


async def test_who_is_not_signed_in_redrives_nothing(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/jobs:redrive", json={})).status_code == 401
