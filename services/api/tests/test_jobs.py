"""Jobs over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
)
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.types import Message

from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import Principal
from jangada.db import Database
from jangada.jobs import service
from jangada.jobs.models import Job
from jangada.jobs.schemas import JobArgs
from jangada.runtime import Runtime
from jangada.testing import Person, make_person
from jangada_api import job_streams, jobs
from jangada_api.testing import SignIn, connect
from jangada_queue.signals import Progress, write_progress

pytestmark = pytest.mark.anyio


class Note(JobArgs):
    kind = "test.note"


class Letter(JobArgs):
    kind = "test.letter"
    queue = "letters"


type Enqueue = Callable[..., Any]


@pytest.fixture
def enqueue(database: Database, person: Person) -> Enqueue:
    async def enqueue(args: JobArgs | None = None) -> Job:
        async with database.transaction(person.tenant_id) as session:
            return await service.enqueue(session, args or Note(), tenant_id=person.tenant_id)

    return enqueue


async def change(database: Database, job: Job, **values: object) -> None:
    """What a worker would write."""
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    async with database.system_transaction("test") as session:
        await session.execute(
            text(f"UPDATE jobs SET {assignments}, revision = revision + 1 WHERE id = :id"),  # noqa: S608 - names of ours
            {**values, "id": job.id},
        )


async def test_a_job_is_read(caller: httpx.AsyncClient, enqueue: Enqueue) -> None:
    job = await enqueue()
    found = (await caller.get(f"/v1/jobs/{job.id}")).json()
    assert found["id"] == str(job.id)
    assert found["kind"] == "test.note"
    assert found["state"] == "available"
    assert (found["progress"], found["result"], found["errors"]) == (None, None, [])
    assert set(found) == set(jobs.EXAMPLE)


async def test_result_and_errors_are_shown(
    caller: httpx.AsyncClient, enqueue: Enqueue, database: Database
) -> None:
    job = await enqueue()
    failure = {"attempt": 1, "at": "2026-03-01T12:00:00Z", "code": "job.failed", "detail": "no"}
    await change(
        database,
        job,
        result=json.dumps({"rows": 3}),
        errors=json.dumps([failure]),
        state="completed",
    )
    found = (await caller.get(f"/v1/jobs/{job.id}")).json()
    assert found["result"] == {"rows": 3}
    assert found["errors"] == [failure | {"errors": []}]


async def test_the_progress_of_a_running_job_comes_from_the_fast_path(
    caller: httpx.AsyncClient, enqueue: Enqueue, database: Database, runtime: Runtime
) -> None:
    job = await enqueue()
    await change(database, job, state="running", attempt=1)
    await write_progress(runtime.queue, str(job.id), Progress(1, 1, 5, 10))
    one = (await caller.get(f"/v1/jobs/{job.id}")).json()
    (listed,) = (await caller.get("/v1/jobs")).json()["data"]
    assert one["progress"] == listed["progress"] == {"done": 5, "total": 10}


async def test_jobs_are_listed_newest_first_in_pages(
    caller: httpx.AsyncClient, enqueue: Enqueue
) -> None:
    made = [str((await enqueue()).id) for _ in range(5)]
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = (await caller.get("/v1/jobs", params=params)).json()
        assert set(page) == {"data", "has_more", "next_cursor"}
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            break
        params["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


@pytest.mark.parametrize(
    ("params", "kinds"),
    [
        ({"kind": "test.letter"}, ["test.letter"]),
        ({"queue": "letters"}, ["test.letter"]),
        ({"state": "completed"}, []),
        ({"state": "available", "kind": "test.note"}, ["test.note"]),
    ],
)
async def test_lists_are_filtered(
    caller: httpx.AsyncClient, enqueue: Enqueue, params: dict[str, str], kinds: list[str]
) -> None:
    await enqueue(Note())
    await enqueue(Letter())
    found = (await caller.get("/v1/jobs", params=params)).json()
    assert [job["kind"] for job in found["data"]] == kinds


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 101},
        {"cursor": "forged"},
        {"state": "asleep"},
        {"since": "2026"},
        {"until": "1e9"},
        {"until": "1" * 400},
        {"until": "2026-11-30"},
    ],
)
async def test_bad_parameters_are_named(caller: httpx.AsyncClient, params: dict[str, Any]) -> None:
    response = await caller.get("/v1/jobs", params=params)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [f"?{next(iter(params))}"]


async def test_a_cursor_is_bound_to_its_filter(caller: httpx.AsyncClient, enqueue: Enqueue) -> None:
    for _ in range(2):
        await enqueue()
    page = (await caller.get("/v1/jobs", params={"limit": 1})).json()
    params = {"limit": 1, "cursor": page["next_cursor"], "state": "available"}
    assert (await caller.get("/v1/jobs", params=params)).status_code == 422


async def test_a_waiting_job_is_cancelled_at_once_and_can_be_retried(
    caller: httpx.AsyncClient, enqueue: Enqueue
) -> None:
    job = await enqueue()
    assert (await caller.post(f"/v1/jobs/{job.id}:cancel")).json()["state"] == "cancelled"
    assert (await caller.post(f"/v1/jobs/{job.id}:cancel")).status_code == 200
    assert (await caller.post(f"/v1/jobs/{job.id}:retry")).json()["state"] == "available"


async def test_a_running_job_is_asked_to_stop(
    caller: httpx.AsyncClient, enqueue: Enqueue, database: Database
) -> None:
    job = await enqueue()
    await change(database, job, state="running", attempt=1)
    found = (await caller.post(f"/v1/jobs/{job.id}:cancel")).json()
    assert found["state"] == "running"
    assert found["cancel_requested_at"] is not None


@pytest.mark.parametrize(
    ("verb", "code"), [("cancel", "job.already_finished"), ("retry", "job.not_retryable")]
)
async def test_what_the_state_forbids_is_a_conflict(
    *, caller: httpx.AsyncClient, enqueue: Enqueue, database: Database, verb: str, code: str
) -> None:
    job = await enqueue()
    await change(database, job, state="completed")
    response = await caller.post(f"/v1/jobs/{job.id}:{verb}")
    assert (response.status_code, response.json()["code"]) == (409, code)


@pytest.mark.parametrize(
    ("method", "suffix"), [("GET", ""), ("GET", "/events"), ("POST", ":cancel"), ("POST", ":retry")]
)
async def test_the_job_of_another_tenant_is_not_found(
    *,
    app: FastAPI,
    database: Database,
    enqueue: Enqueue,
    sign_in: SignIn,
    method: str,
    suffix: str,
) -> None:
    job = await enqueue()
    stranger = await make_person(database, "Bea")
    async with connect(app, headers=await sign_in(stranger)) as client:
        response = await client.request(method, f"/v1/jobs/{job.id}{suffix}")
        listed = await client.get("/v1/jobs")
    assert (response.status_code, response.json()["code"]) == (404, "job.not_found")
    assert listed.json()["data"] == []


class Events:
    """An event stream, read as it comes: the application runs in a task beside the test."""

    def __init__(self, app: FastAPI, path: str, headers: dict[str, str]) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._asked = False
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": raw,
            "scheme": "http",
            "server": ("api.test", 80),
            "client": None,
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        elif message.get("body"):
            self._chunks.put_nowait(message["body"])

    async def next(self) -> dict[str, str]:
        """The next event's fields; comments are skipped."""
        async with asyncio.timeout(30):
            while True:
                lines = (await self._chunks.get()).decode().splitlines()
                fields = dict(line.split(": ", 1) for line in lines if line and line[0] != ":")
                if fields:
                    return fields

    async def ended(self) -> bool:
        """Wait for the end; whether no event came before it."""
        async with asyncio.timeout(30):
            await self.task
        return self._chunks.empty()

    def leave(self) -> None:
        self._gone.set()


type Follow = Callable[..., AbstractAsyncContextManager[Events]]


@pytest.fixture
async def follow(app: FastAPI, person: Person, sign_in: SignIn) -> Follow:
    """Open the stream of a job, as the person of the fixture `person`."""
    signed_in = await sign_in(person)

    @asynccontextmanager
    async def following(job: Job, **headers: str) -> AsyncIterator[Events]:
        events = Events(app, f"/v1/jobs/{job.id}/events", signed_in | headers)
        try:
            yield events
        finally:
            events.leave()
            await events.ended()

    return following


async def test_a_job_is_followed_to_its_end(
    follow: Follow,
    enqueue: Enqueue,
    database: Database,
    runtime: Runtime,
) -> None:
    job = await enqueue()
    async with follow(job) as events:
        first = await events.next()
        assert events.headers[b"content-type"].startswith(b"text/event-stream")
        assert events.headers[b"x-accel-buffering"] == b"no"
        assert (first["event"], first["id"]) == ("job", "1")
        assert json.loads(first["data"])["state"] == "available"
        await change(database, job, state="running", attempt=1)
        second = await events.next()
        assert (second["id"], json.loads(second["data"])["state"]) == ("2", "running")
        await write_progress(runtime.queue, str(job.id), Progress(1, 1, 5, 10))
        third = await events.next()
        assert third["id"] == "2"
        assert json.loads(third["data"])["progress"] == {"done": 5, "total": 10}
        await change(database, job, state="completed", result=json.dumps({"rows": 10}))
        last = await events.next()
        assert json.loads(last["data"])["result"] == {"rows": 10}
        assert int(last["retry"]) > 1_000_000
        assert await events.ended()


async def test_who_resumes_gets_the_newest_snapshot(
    follow: Follow, enqueue: Enqueue, database: Database
) -> None:
    job = await enqueue()
    for attempt in range(1, 4):
        await change(database, job, state="running", attempt=attempt)
    async with follow(job, **{"Last-Event-ID": "2"}) as events:
        assert (await events.next())["id"] == "4"


async def test_the_stream_of_a_finished_job_is_its_last_snapshot(
    follow: Follow, enqueue: Enqueue, database: Database
) -> None:
    job = await enqueue()
    await change(database, job, state="discarded")
    async with follow(job) as events:
        assert json.loads((await events.next())["data"])["state"] == "discarded"
        assert await events.ended()


async def test_the_stream_ends_with_the_session(
    app: FastAPI, follow: Follow, enqueue: Enqueue
) -> None:
    job = await enqueue()
    accounts: Accounts = app.state.accounts
    async with follow(job) as events:
        await events.next()
        async with accounts.runtime.database.read(job.tenant_id) as session:
            session_id = await session.scalar(text("SELECT id FROM sessions"))
        assert isinstance(session_id, UUID)
        accounts.revocations.end(session_id)
        assert await events.ended()


async def test_the_stream_ends_with_the_job_s_row(
    follow: Follow, enqueue: Enqueue, database: Database
) -> None:
    job = await enqueue()
    async with follow(job) as events:
        await events.next()
        async with database.system_transaction("test") as session:
            await session.execute(text("DELETE FROM jobs"))
        assert await events.ended()


async def test_streams_end_when_the_process_stops(
    app: FastAPI, follow: Follow, enqueue: Enqueue
) -> None:
    job = await enqueue()
    async with follow(job) as events:
        await events.next()
        app.state.health.stopping.set()
        assert await events.ended()


async def test_a_client_that_leaves_ends_its_stream_and_frees_its_place(
    app: FastAPI, follow: Follow, enqueue: Enqueue
) -> None:
    job = await enqueue()
    async with follow(job) as events:
        await events.next()
        assert app.state.streams.open == 1
        events.leave()
        assert await events.ended()
    assert app.state.streams.open == 0


async def test_more_streams_than_a_session_may_have_are_refused(
    app: FastAPI, follow: Follow, caller: httpx.AsyncClient, enqueue: Enqueue
) -> None:
    job = await enqueue()
    async with AsyncExitStack() as stack:
        for _ in range(job_streams.MAX_STREAMS_PER_SESSION):
            await (await stack.enter_async_context(follow(job))).next()
        async with follow(job) as refused:
            assert await refused.ended() is False
            assert (refused.status, refused.headers[b"retry-after"]) == (429, b"5")
        first_session = app.state.streams.open
        other = Events(app, f"/v1/jobs/{job.id}/events", dict(caller.headers))
        await other.next()
        assert app.state.streams.open == first_session + 1
        other.leave()
        await other.ended()
    assert app.state.streams.open == 0


async def test_head_of_a_stream_holds_no_place(
    app: FastAPI, caller: httpx.AsyncClient, enqueue: Enqueue
) -> None:
    job = await enqueue()
    for _ in range(job_streams.MAX_STREAMS_PER_SESSION + 1):
        answer = await caller.head(f"/v1/jobs/{job.id}/events")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
    assert app.state.streams.open == 0


def of(tenant_id: UUID) -> Principal:
    """Somebody of the tenant, in a session of their own."""
    return Principal(user_id=uuid4(), tenant_id=tenant_id, session_id=uuid4(), roles=frozenset())


async def test_more_streams_than_a_tenant_may_have_are_refused(
    app: FastAPI, caller: httpx.AsyncClient, enqueue: Enqueue
) -> None:
    job, streams = await enqueue(), app.state.streams
    with ExitStack() as stack:
        for _ in range(job_streams.MAX_STREAMS_PER_TENANT):
            stack.enter_context(streams.hold(of(job.tenant_id)))
        response = await caller.get(f"/v1/jobs/{job.id}/events")
        assert (response.status_code, response.json()["code"]) == (429, "job.stream_limit_reached")
        with streams.hold(of(uuid4())):
            assert streams.open == job_streams.MAX_STREAMS_PER_TENANT + 1


async def test_more_streams_than_a_process_bears_are_refused(
    app: FastAPI, caller: httpx.AsyncClient, enqueue: Enqueue
) -> None:
    job = await enqueue()
    with ExitStack() as stack:
        for _ in range(job_streams.MAX_STREAMS):
            stack.enter_context(app.state.streams.hold(of(uuid4())))
        response = await caller.get(f"/v1/jobs/{job.id}/events")
        assert (response.status_code, response.json()["code"]) == (503, "job.too_many_streams")
    assert app.state.streams.open == 0


async def test_streams_hold_no_connection_and_a_tenant_s_are_fed_by_one_reader(
    *,
    app: FastAPI,
    caller: httpx.AsyncClient,
    person: Person,
    sign_in: SignIn,
    enqueue: Enqueue,
    database: Database,
    runtime: Runtime,
) -> None:
    pool: Any = runtime.database.engine.pool
    followed = [await enqueue() for _ in range(pool.size() + 5)]
    streams = [Events(app, f"/v1/jobs/{job.id}/events", await sign_in(person)) for job in followed]
    for stream in streams:
        await stream.next()
    assert [task.get_name() for task in asyncio.all_tasks()].count(job_streams.READER) == 1
    assert (await caller.get(f"/v1/jobs/{followed[0].id}")).status_code == 200
    for job in followed:
        await change(database, job, state="cancelled")
    for stream in streams:
        assert json.loads((await stream.next())["data"])["state"] == "cancelled"
        assert await stream.ended()
