"""The order of the middleware, and what each layer promises."""

import asyncio
import gc
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import cast
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.routing import iter_route_contexts
from prometheus_client import CollectorRegistry, generate_latest
from starlette.middleware import Middleware
from starlette.types import Message, Receive, Scope

from jangada.config import Settings
from jangada.jobs.models import Job
from jangada.jobs.schemas import JobArgs
from jangada.jobs.service import enqueue
from jangada.runtime import Runtime
from jangada.telemetry import get_logger
from jangada.testing import eventually
from jangada_api import middleware
from jangada_api.app import ROUTERS, create_app
from jangada_api.deps import PrincipalDep, SessionDep
from jangada_api.middleware import SECURITY_HEADERS, allow_body, route_of
from jangada_api.testing import LogLines, connect

pytestmark = pytest.mark.anyio

router = APIRouter(prefix="/test")


class Note(JobArgs):
    kind = "test.note"


@router.post("/jobs")
async def make_job(session: SessionDep, principal: PrincipalDep) -> UUID:
    job: Job = await enqueue(session, Note(), tenant_id=principal.tenant_id)
    return job.id


@router.get("/things/{thing}")
async def get_thing(thing: str) -> str:
    get_logger("jangada_api.test").info("inside")
    return thing


@router.post("/echo")
async def echo(request: Request) -> int:
    return len(await request.body())


@router.post("/upload")
async def upload(request: Request) -> int:
    allow_body(request.scope, max_bytes=5_000_000, chunk_timeout=timedelta(seconds=5))
    return sum([len(chunk) async for chunk in request.stream()])


@router.post("/patient")
async def patient(request: Request) -> int:
    allow_body(request.scope, max_bytes=100, chunk_timeout=timedelta(milliseconds=50))
    return len(await request.body())


@router.post("/unread")
async def unread() -> None:
    """Answers without having asked for the body."""


@router.get("/broken")
async def broken() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ValueError("canary")

    return StreamingResponse(chunks())


@router.get("/endless")
async def endless() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        try:
            while True:
                Endless.parts += 1
                yield b"more"
        finally:
            Endless.has_ended = True

    return StreamingResponse(chunks())


class Endless:
    """What became of the stream."""

    parts = 0
    has_ended = False


@router.get("/fails")
async def fails() -> None:
    raise ValueError("canary")


@pytest.fixture(autouse=True)
def routes(app: FastAPI) -> None:
    app.include_router(router)


async def test_the_order_is_fixed(app: FastAPI) -> None:
    used = [layer.cls for layer in app.user_middleware]
    assert used == list[object](middleware.ORDER)
    assert [layer.__name__ for layer in middleware.ORDER] == [
        "RequestId",
        "HttpMetrics",
        "AccessLog",
        "SecurityHeaders",
        "HeadRequests",
        "BodyLimit",
        "Failures",
    ]


async def test_a_refusal_of_the_innermost_passes_through_all_others(
    client: httpx.AsyncClient, log_lines: LogLines, app: FastAPI
) -> None:
    response = await client.post("/test/echo", content=b"x" * 2_000_000)
    (line,) = log_lines.of("jangada_api.access")
    assert response.status_code == 413
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-request-id"] == line["request_id"] == response.json()["request_id"]
    assert (line["status"], line["code"]) == (413, "request.too_large")
    assert ("POST", "/test/echo", "413") in counted(app.state.registry)


@pytest.mark.parametrize("path", ["/test/things/1", "/test/fails", "/v1/me", "/nowhere"])
async def test_head_is_answered_as_get_without_a_body(
    client: httpx.AsyncClient, log_lines: LogLines, app: FastAPI, path: str
) -> None:
    head, get = await client.head(path), await client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    own = {"x-request-id"}
    assert set(head.headers) == set(get.headers)
    for name in set(get.headers) - own:
        assert head.headers[name] == get.headers[name]
    heard, other = log_lines.of("jangada_api.access")
    assert (heard["method"], heard["bytes_sent"]) == ("HEAD", 0)
    assert (heard["route"], heard.get("code")) == (other["route"], other.get("code"))
    assert ("HEAD", heard["route"], str(get.status_code)) in counted(app.state.registry)


async def test_head_begins_no_stream(client: httpx.AsyncClient) -> None:
    """What would have sent it is garbage then, as where a client leaves."""

    async def has_ended() -> bool:
        gc.collect()
        return Endless.has_ended

    response = await client.head("/test/endless")
    assert (response.status_code, response.content) == (200, b"")
    await eventually(has_ended)
    assert Endless.parts == 1


@pytest.mark.parametrize("sent", ["abc-123", "0198f3f0-7c1e-7a52-9d52-7d5d7bcbf4a1", "A" * 128])
async def test_a_safe_request_id_is_kept(client: httpx.AsyncClient, sent: str) -> None:
    response = await client.get("/test/things/1", headers={"X-Request-ID": sent})
    assert response.headers["x-request-id"] == sent


@pytest.mark.parametrize(
    "sent", [b"", b"a b", b"a\tb", b"-rf", b"x" * 129, b"caf\xc3\xa9", b"a@b.org", b"<script>"]
)
async def test_an_unsafe_request_id_is_replaced(client: httpx.AsyncClient, sent: bytes) -> None:
    response = await client.get("/test/things/1", headers={b"X-Request-ID": sent})
    assert UUID(response.headers["x-request-id"]).version == 7


async def test_the_ids_are_on_every_line_and_in_the_job(
    caller: httpx.AsyncClient, log_lines: LogLines, runtime: Runtime
) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"X-Request-ID": "from-outside", "traceparent": parent}
    await caller.get("/test/things/1", headers=headers)
    for line in log_lines.all():
        assert line["request_id"] == "from-outside"
        assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    response = await caller.post("/test/jobs", headers=headers)
    (line,) = log_lines.of("jangada_api.access")
    async with runtime.database.read(UUID(line["tenant_id"])) as session:
        job = await session.get_one(Job, (UUID(line["tenant_id"]), UUID(response.json())))
    assert job.request_id == "from-outside"
    assert line["route"] == "/test/jobs"


async def test_without_a_traceparent_a_trace_id_is_made(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    await client.get("/test/things/1", headers={"traceparent": "nonsense"})
    inside, access = log_lines.all()
    assert len(inside["trace_id"]) == 32
    assert inside["trace_id"] == access["trace_id"]


async def test_the_ids_of_one_request_do_not_reach_the_next(
    client: httpx.AsyncClient, caller: httpx.AsyncClient, log_lines: LogLines
) -> None:
    await caller.post("/test/jobs")
    log_lines.all()
    await client.get("/test/things/1")
    assert not any("tenant_id" in line for line in log_lines.all())


def counted(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    """Requests by method, route and status."""
    name = "http_server_request_duration_seconds"
    (family,) = [metric for metric in registry.collect() if metric.name == name]
    return {
        (
            sample.labels["http_request_method"],
            sample.labels["http_route"],
            sample.labels["http_response_status_code"],
        ): sample.value
        for sample in family.samples
        if sample.name.endswith("_count")
    }


async def test_requests_are_counted_by_template_and_never_by_path(
    client: httpx.AsyncClient, app: FastAPI
) -> None:
    for number in range(20):
        await client.get(f"/test/things/canary-{number}")
        await client.get(f"/nowhere/canary-{number}")
        await client.request(f"CANARY{number}", "/test/things/1")
        await client.get("/static/pages.css")
    assert counted(app.state.registry) == {
        ("GET", "/test/things/{thing}", "200"): 20,
        ("GET", "(none)", "404"): 20,
        ("_OTHER", "/test/things/{thing}", "405"): 20,
        ("GET", "(static)", "200"): 20,
    }
    text = generate_latest(app.state.registry).decode()
    assert "canary" not in text.lower()
    assert 'http_server_active_requests{http_request_method="GET"} 0.0' in text


def operations(app: FastAPI) -> Iterator[tuple[str, str]]:
    for path, item in app.openapi()["paths"].items():
        if not path.startswith(router.prefix):
            yield from ((method.upper(), path) for method in item)


async def test_the_label_of_every_route_is_its_path_in_the_document(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    for method, path in operations(app):
        await client.request(method, re.sub(r"{\w+}", str(UUID(int=1)), path))
    labels = {(method, route) for method, route, _ in counted(app.state.registry)}
    assert labels == set(operations(app))


async def test_routers_have_their_whole_paths_themselves() -> None:
    contexts = [found for router in ROUTERS for found in iter_route_contexts(router.routes)]
    assert all((found.path or "").startswith(("/v1/", "/.well-known/")) for found in contexts)


async def test_a_request_that_no_route_served_has_a_bounded_label() -> None:
    assert route_of(cast(Scope, {"type": "http"})) == "(none)"


async def test_a_request_is_one_line_without_path_query_or_header(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    await client.get(
        "/test/things/canary-path?q=canary-query", headers={"User-Agent": "canary-header"}
    )
    text = log_lines.text()
    assert "canary" not in text
    assert '"route":"/test/things/{thing}"' in text
    assert '"client":"203.0.113.7"' in text


async def test_a_failure_is_logged_once_with_its_place_and_warned_of(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    await client.get("/test/fails")
    failure, access = log_lines.all()
    assert failure["level"] == "error"
    assert "ValueError: (message withheld)" in failure["exception"]
    assert (access["level"], access["status"], access["code"]) == ("warning", 500, "internal.error")


async def test_a_stream_that_breaks_is_not_ended_as_if_it_were_whole(
    client: httpx.AsyncClient,
) -> None:
    with pytest.raises(ValueError, match="canary"):
        await client.get("/test/broken")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/test/things/1"),
        ("GET", "/nowhere"),
        ("PUT", "/test/echo"),
        ("GET", "/v1/jobs"),
        ("GET", "/test/fails"),
        ("GET", "/openapi.json"),
        ("OPTIONS", "/v1/jobs"),
    ],
)
async def test_security_headers_are_on_every_answer(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await client.request(method, path)
    for name, value in SECURITY_HEADERS.items():
        assert response.headers[name.decode()] == value.decode()
    assert "server" not in response.headers


@pytest.fixture
async def small(settings: Settings, runtime: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    api = settings.api.model_copy(update={"max_body_bytes": 1024})
    app = create_app(settings.model_copy(update={"api": api}), runtime=runtime)
    app.include_router(router)
    async with connect(app) as client:
        yield client


async def test_a_body_up_to_the_limit_is_taken(small: httpx.AsyncClient) -> None:
    assert (await small.post("/test/echo", content=b"x" * 1024)).json() == 1024


async def test_an_announced_body_beyond_the_limit_is_refused(small: httpx.AsyncClient) -> None:
    response = await small.post("/test/echo", content=b"x" * 1025)
    assert response.status_code == 413
    assert response.headers["connection"] == "close"


async def test_a_body_that_grows_beyond_the_limit_is_ended_while_it_streams(
    small: httpx.AsyncClient,
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 512
            yield b"x" * 512

    response = await small.post("/test/echo", content=endless())
    assert response.status_code == 413
    assert sent <= 4 * 512


async def test_a_route_may_allow_more(small: httpx.AsyncClient) -> None:
    assert (await small.post("/test/upload", content=b"x" * 3_000_000)).json() == 3_000_000
    assert (await small.post("/test/upload", content=b"x" * 6_000_000)).status_code == 413


async def test_a_body_that_nobody_reads_is_no_fault(small: httpx.AsyncClient) -> None:
    assert (await small.post("/test/unread", content=b"x" * 5000)).status_code == 200


async def test_a_client_that_leaves_is_no_failure(app: FastAPI, log_lines: LogLines) -> None:
    async def leave() -> Message:
        return {"type": "http.disconnect"}

    assert await ask(app, "/test/upload", leave) == []
    (line,) = log_lines.all()
    assert (line["level"], line["status"], line["outcome"]) == ("info", None, "the client left")
    assert ("POST", "/test/upload", "499") in counted(app.state.registry)


async def test_a_failure_of_the_middleware_itself_is_a_problem_too(app: FastAPI) -> None:
    async def explode(*_: object) -> None:
        raise RuntimeError("canary")

    app.user_middleware.insert(0, Middleware(lambda _: explode))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        response = await client.get("/test/things/1")
    assert response.status_code == 500
    assert response.json()["code"] == "internal.error"
    assert response.headers["x-content-type-options"] == "nosniff"


async def ask(app: FastAPI, path: str, receive: Receive) -> list[Message]:
    """A request whose body comes as `receive` says."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "scheme": "http",
        "server": ("api.test", 80),
        "client": None,
    }
    await app(scope, receive, send)
    return sent


async def test_a_body_that_stops_coming_is_408(app: FastAPI) -> None:
    async def silent() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    start, *_ = await ask(app, "/test/patient", silent)
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
