"""Every answer ≥ 400 is a problem document, whoever gives it."""

import gzip
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import httpx
import psycopg.errors
import pytest
import redis.exceptions
import sqlalchemy.exc
from fastapi import APIRouter, FastAPI, Form, HTTPException
from openapi_schema_validator import OAS31Validator
from pydantic import BaseModel, Field
from sqlalchemy.orm.exc import StaleDataError

from jangada.config import Settings
from jangada.errors import (
    KINDS,
    Conflict,
    FieldError,
    Invalid,
    JangadaError,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from jangada_api import problems
from jangada_api.deps import RuntimeDep
from jangada_api.openapi import ProblemDocument
from jangada_queue.errors import QueueUnavailable

NOBODY = UUID(int=1)

pytestmark = pytest.mark.anyio


class ThingNotFound(NotFound):
    """There is no such thing."""

    code = "thing.not_found"


class Thing(BaseModel):
    name: str = Field(min_length=1)
    tags: list[int] = []


def routes(raising: list[Exception]) -> APIRouter:
    router = APIRouter(prefix="/test")

    @router.get("/error/{number}")
    async def error(number: int, limit: int = 1) -> None:
        del limit
        raise raising[number]

    @router.post("/things")
    async def things(thing: Thing) -> Thing:
        return thing

    @router.post("/form")
    async def form(name: Annotated[str, Form()]) -> str:
        return name

    return router


def integrity(kind: type[psycopg.Error]) -> Exception:
    return sqlalchemy.exc.IntegrityError("INSERT", {}, kind("canary"))


def operational(kind: type[psycopg.Error]) -> Exception:
    return sqlalchemy.exc.OperationalError("SELECT", {}, kind("canary"))


# An error, its status, its code, and headers that its answer needs.
EXAMPLES: list[tuple[Exception, int, str, dict[str, str]]] = [
    (Unauthenticated("x"), 401, "request.unauthenticated", {"www-authenticate": "Bearer"}),
    (ThingNotFound("x"), 404, "thing.not_found", {}),
    (Conflict("x"), 409, "resource.conflict", {}),
    (Invalid("x", errors=[FieldError("/a", "b", "c")]), 422, "request.invalid", {}),
    (RateLimited("x"), 429, "request.rate_limited", {"retry-after": "5"}),
    (Unavailable("x"), 503, "service.unavailable", {"retry-after": "5"}),
    (
        Unavailable("x", retry_after=timedelta(milliseconds=1200)),
        503,
        "service.unavailable",
        {"retry-after": "2"},
    ),
    (integrity(psycopg.errors.UniqueViolation), 409, "resource.conflict", {}),
    (integrity(psycopg.errors.ForeignKeyViolation), 409, "resource.conflict", {}),
    (operational(psycopg.errors.CharacterNotInRepertoire), 422, "request.invalid", {}),
    (integrity(psycopg.errors.NotNullViolation), 500, "internal.error", {}),
    (StaleDataError("canary"), 409, "resource.concurrent_change", {}),
    (operational(psycopg.errors.DeadlockDetected), 409, "resource.concurrent_change", {}),
    (operational(psycopg.errors.AdminShutdown), 503, "database.unavailable", {"retry-after": "5"}),
    (operational(psycopg.errors.QueryCanceled), 503, "database.busy", {"retry-after": "1"}),
    (sqlalchemy.exc.TimeoutError("canary"), 503, "database.busy", {"retry-after": "1"}),
    (psycopg.OperationalError("canary"), 503, "database.unavailable", {}),
    (psycopg.errors.UndefinedTable("canary"), 500, "internal.error", {}),
    (redis.exceptions.ConnectionError("canary"), 503, "valkey.unavailable", {"retry-after": "5"}),
    (QueueUnavailable("canary"), 503, "valkey.unavailable", {}),
    (HTTPException(403, "canary"), 403, "request.forbidden", {}),
    (HTTPException(418, "canary"), 418, "request.malformed", {}),
    (HTTPException(502, "canary"), 502, "internal.error", {}),
    (RuntimeError("canary"), 500, "internal.error", {}),
    (ExceptionGroup("canary", [ValueError("canary")]), 500, "internal.error", {}),
    (problems.too_large(10), 413, "request.too_large", {"connection": "close"}),
    (problems.unsupported_media_type("text/csv"), 415, "request.unsupported_media_type", {}),
]


@pytest.fixture
def things(app: FastAPI) -> FastAPI:
    app.include_router(routes([error for error, *_ in EXAMPLES]))
    return app


def problem_of(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == problems.MEDIA_TYPE
    found: dict[str, Any] = response.json()
    OAS31Validator(ProblemDocument.model_json_schema()).validate(found)
    assert found["status"] == response.status_code
    assert found["request_id"] == response.headers["x-request-id"]
    assert found["type"] == f"urn:jangada:problem:{found['code']}"
    return found


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_an_error_has_its_status_and_code_and_says_nothing_of_our_insides(
    things: FastAPI, client: httpx.AsyncClient, number: int
) -> None:
    _, status, code, headers = EXAMPLES[number]
    response = await client.get(f"/test/error/{number}")
    found = problem_of(response)
    assert (response.status_code, found["code"]) == (status, code)
    assert "canary" not in response.text
    for name, value in headers.items():
        assert response.headers[name].startswith(value)


async def test_the_faults_of_an_invalid_input_are_named(
    things: FastAPI, client: httpx.AsyncClient
) -> None:
    response = await client.get("/test/error/3")
    assert problem_of(response)["errors"] == [{"pointer": "/a", "code": "b", "detail": "c"}]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b'{"name": "", "tags": [1, "x"]}', {"/name", "/tags/1"}),
        (b"{}", {"/name"}),
        (b"[]", {""}),
        (b"{", {""}),
        (b"", {""}),
    ],
)
async def test_a_validation_error_points_into_the_body(
    things: FastAPI, client: httpx.AsyncClient, body: bytes, pointers: set[str]
) -> None:
    headers = {"Content-Type": "application/json"}
    response = await client.post("/test/things", content=body, headers=headers)
    found = problem_of(response)
    assert (response.status_code, found["code"]) == (422, "request.invalid")
    assert {error["pointer"] for error in found["errors"]} == pointers


async def test_a_validation_error_points_at_parameters(
    things: FastAPI, client: httpx.AsyncClient
) -> None:
    response = await client.get("/test/error/x", params={"limit": "many"})
    errors = problem_of(response)["errors"]
    assert {error["pointer"] for error in errors} == {"path:number", "?limit"}


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", None])
async def test_a_body_of_another_media_type_is_415(
    things: FastAPI, client: httpx.AsyncClient, media_type: str | None
) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    response = await client.post("/test/things", content=b'{"name": "x"}', headers=headers)
    assert problem_of(response)["code"] == "request.unsupported_media_type"
    assert response.headers["accept"] == "application/json"
    assert response.status_code == 415


@pytest.mark.parametrize(
    ("body", "code", "hint"),
    [
        (b'{"name": "canary"', "request.invalid", "Expecting ',' delimiter at offset 17"),
        (b'{"name": canary}', "request.invalid", "Expecting value at offset 9"),
        (b'{"name": "canary\xff"}', "request.malformed", "not utf-8, from byte 16 on"),
        (b"[" * 100_000, "request.malformed", "nested more deeply"),
        (b'{"name": ' + b"9" * 5000 + b"}", "request.malformed", "more digits"),
    ],
)
async def test_what_is_no_json_says_why_and_where(
    *, things: FastAPI, client: httpx.AsyncClient, body: bytes, code: str, hint: str
) -> None:
    headers = {"Content-Type": "application/json"}
    response = await client.post("/test/things", content=body, headers=headers)
    document = problem_of(response)
    assert document["code"] == code
    assert hint in "; ".join([document["detail"], *(each["detail"] for each in document["errors"])])
    assert "canary" not in response.text


async def test_a_form_that_cannot_be_parsed_is_400(
    things: FastAPI, client: httpx.AsyncClient
) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    response = await client.post("/test/form", content=b"canary", headers=headers)
    assert problem_of(response)["code"] == "request.malformed"
    assert response.status_code == 400


async def test_an_unknown_path_is_404(client: httpx.AsyncClient) -> None:
    response = await client.get("/nowhere/canary")
    assert response.status_code == 404
    assert problem_of(response)["code"] == "route.not_found"
    assert "canary" not in response.text


async def test_a_trailing_slash_is_another_path_and_no_redirect(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/jobs/")).status_code == 404


async def test_another_method_is_405_and_names_the_known(client: httpx.AsyncClient) -> None:
    response = await client.put("/v1/jobs")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"
    assert problem_of(response)["code"] == "route.method_not_allowed"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/me", "DELETE, GET, HEAD, PATCH"),
        ("/v1/schedules", "GET, HEAD, POST"),
        (f"/v1/contacts/{NOBODY}", "DELETE, GET, HEAD, PATCH"),
        ("/v1/contacts/imports", "POST"),
        (f"/v1/jobs/{NOBODY}:cancel", "POST"),
        ("/static/nothing.js", "GET, HEAD"),
    ],
)
async def test_all_methods_of_an_address_are_named(
    client: httpx.AsyncClient, path: str, methods: str
) -> None:
    assert (await client.put(path)).headers["allow"] == methods


@pytest.mark.parametrize(
    ("path", "unknown", "known"),
    [
        ("/v1/contacts?on-conflict=skip&limit=3", ["?on-conflict"], "cursor, email, limit"),
        ("/v1/contacts:export?Q=a&page=2", ["?Q", "?page"], "phone, q"),
        ("/v1/me?limit=3", ["?limit"], "none"),
    ],
)
async def test_an_unknown_query_parameter_is_refused(
    caller: httpx.AsyncClient,
    client: httpx.AsyncClient,
    *,
    path: str,
    unknown: list[str],
    known: str,
) -> None:
    """A typo isn't taken for the default, and who isn't signed in is told that first."""
    response = await caller.get(path)
    assert response.status_code == 422
    errors = problem_of(response)["errors"]
    assert [(each["pointer"], each["code"]) for each in errors] == [
        (name, "extra_forbidden") for name in unknown
    ]
    assert known in errors[0]["detail"]
    assert (await client.get(path)).status_code == 401


async def test_a_query_parameter_that_comes_twice_is_refused(caller: httpx.AsyncClient) -> None:
    response = await caller.get("/v1/contacts?limit=1&limit=500&q=a")
    errors = problem_of(response)["errors"]
    assert [(each["pointer"], each["code"]) for each in errors] == [("?limit", "repeated")]


async def test_what_is_no_id_is_no_address(caller: httpx.AsyncClient) -> None:
    response = await caller.get("/v1/contacts/42")
    assert response.status_code == 404
    assert problem_of(response)["code"] == "route.not_found"


async def test_an_encoded_body_is_not_read(caller: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "identity,, identity"}
    assert (await caller.post("/v1/contacts", content=b"{}", headers=headers)).status_code == 422
    headers["Content-Encoding"] = "identity, gzip"
    response = await caller.post("/v1/contacts", content=gzip.compress(b"{}"), headers=headers)
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "identity"
    assert "without Content-Encoding" in problem_of(response)["detail"]


async def test_a_file_that_is_not_there_is_a_problem_too(client: httpx.AsyncClient) -> None:
    response = await client.get("/static/nothing.js")
    assert response.status_code == 404
    problem_of(response)


async def test_without_a_token_a_route_says_how_to_sign_in(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/jobs")
    assert response.status_code == 401
    assert problem_of(response)["code"] == "auth.token_missing"
    assert response.headers["www-authenticate"] == 'Bearer realm="jangada"'


async def test_with_a_bad_token_the_challenge_names_it(client: httpx.AsyncClient) -> None:
    headers = {"Authorization": "Bearer canary"}
    response = await client.get("/v1/jobs", headers=headers)
    assert response.status_code == 401
    assert 'error="invalid_token"' in response.headers["www-authenticate"]
    assert "canary" not in response.text


async def test_a_full_pool_is_503(settings: Settings) -> None:
    """The pool's own error; what leads to it is tested with the database."""
    response = problems.response_to(sqlalchemy.exc.TimeoutError("QueuePool limit"))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_status(kind: type[JangadaError]) -> None:
    assert problems.status_of(kind) in problems.ANSWERS or kind is Conflict


@pytest.mark.parametrize(
    "path",
    [
        *(f"/v1/contacts?{name}=%00" for name in ("q", "email", "phone", "company")),
        "/v1/contacts:export?company=a%00b",
        *(f"/v1/jobs?{name}=%00" for name in ("kind", "queue")),
        "/v1/jobs?kind=" + "x" * 5000,
    ],
)
async def test_a_filter_that_cannot_be_compared_with_is_invalid(
    caller: httpx.AsyncClient, path: str
) -> None:
    found = problem_of(await caller.get(path))
    assert (found["status"], found["code"]) == (422, "request.invalid")
    assert found["errors"][0]["pointer"] == "?" + path.partition("?")[2].partition("=")[0]


async def test_a_nul_that_no_check_saw_is_invalid(app: FastAPI, client: httpx.AsyncClient) -> None:
    router = APIRouter()

    @router.get("/test/nul")
    async def nul(runtime: RuntimeDep) -> None:
        async with runtime.database.system_transaction("test") as session:
            await session.execute(sqlalchemy.text("SELECT :value"), {"value": "a\0b"})

    app.include_router(router)
    found = problem_of(await client.get("/test/nul"))
    assert (found["status"], found["code"]) == (422, "request.invalid")
