"""The OpenAPI document: valid, complete, with an example of everything."""

import json
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from toolchain import ROOT

from jangada.config import Settings
from jangada_api.app import ROUTERS, create_app
from jangada_api.problems import MEDIA_TYPE
from jangada_api.testing import connect

PASSWORD = "the tide goes out at six"
JSON_TYPES = {"application/json", MEDIA_TYPE}

DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs/openapi.json").read_text("utf-8"))
"""As the server serves it, says a test below; to make it takes half a second."""
OPERATIONS = [(method, path) for path, item in DOCUMENT["paths"].items() for method in item]


@pytest.fixture
def document() -> dict[str, Any]:
    return DOCUMENT


@pytest.fixture(params=OPERATIONS, ids=lambda pair: f"{pair[0].upper()} {pair[1]}")
def operation(request: pytest.FixtureRequest, document: dict[str, Any]) -> dict[str, Any]:
    method, path = request.param
    found: dict[str, Any] = document["paths"][path][method]
    return found


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_every_route_is_in_it(document: dict[str, Any]) -> None:
    routes = [c.original_route for router in ROUTERS for c in iter_route_contexts(router.routes)]
    public = [r for r in routes if isinstance(r, APIRoute) and r.include_in_schema]
    served = {(m.lower(), route.path_format) for route in public for m in route.methods or ()}
    assert served == set(OPERATIONS)


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [document["paths"][path][method]["operationId"] for method, path in OPERATIONS]
    assert len(ids) == len(set(ids))


def test_an_operation_is_named_and_tagged(operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert "\n" not in operation["summary"]
    assert operation["tags"]


def test_every_parameter_is_described(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", []):
        described = parameter.get("description") or parameter["schema"].get("description")
        assert described or parameter["in"] == "path", parameter["name"]


def contents(operation: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Each body of an operation: where, media type, content."""
    bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
    return [
        (where, media_type, content)
        for where, body in bodies.items()
        for media_type, content in body.get("content", {}).items()
    ]


def examples(content: dict[str, Any]) -> list[Any]:
    named = [example["value"] for example in content.get("examples", {}).values()]
    return [content["example"], *named] if "example" in content else named


def test_every_body_has_an_example(operation: dict[str, Any]) -> None:
    for where, media_type, content in contents(operation):
        assert examples(content), f"{where} {media_type}"


def test_every_example_is_as_its_schema_says(
    document: dict[str, Any], operation: dict[str, Any]
) -> None:
    for _, media_type, content in contents(operation):
        if media_type in JSON_TYPES:
            schema = {**content["schema"], "components": document["components"]}
            validator = OAS31Validator(schema)
            for example in examples(content):
                assert list(validator.iter_errors(example)) == []


def test_errors_are_documented_as_problems(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    assert {"500", "503", "default"} <= set(responses)
    if operation.get("security"):
        assert "401" in responses
    for status, response in responses.items():
        if status == "default" or int(status) >= 400:
            assert list(response["content"]) == [MEDIA_TYPE]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/contacts", {"email": "a@b.co"}, 201),
        ("POST", "/v1/contacts", {}, 422),
        ("POST", "/v1/auth/register", {"email": "a@b.co", "name": "A", "password": PASSWORD}, 201),
        ("GET", "/v1/contacts", None, 200),
        ("GET", "/v1/me", None, 401),
    ],
)
async def test_an_answer_has_the_headers_that_are_documented(
    *,
    document: dict[str, Any],
    caller: httpx.AsyncClient,
    client: httpx.AsyncClient,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    status: int,
) -> None:
    sender = client if status == 401 else caller
    answer = await sender.request(method, path, json=body)
    assert answer.status_code == status
    headers = document["paths"][path][method.lower()]["responses"][str(status)]["headers"]
    assert set(document["components"]["headers"]) >= set(headers) >= {"X-Request-ID"}
    assert all(name in answer.headers for name in headers)
    assert ("Location" in headers) == ("location" in answer.headers)
    assert ("WWW-Authenticate" in headers) == ("www-authenticate" in answer.headers)


def test_lists_come_in_the_envelope(document: dict[str, Any]) -> None:
    """Whatever takes a cursor answers `data`, `has_more` and `next_cursor`."""
    for method, path in OPERATIONS:
        operation = document["paths"][path][method]
        if "cursor" not in {parameter["name"] for parameter in operation.get("parameters", [])}:
            continue
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        name = schema["$ref"].rpartition("/")[2]
        properties = document["components"]["schemas"][name]["properties"]
        assert set(properties) == {"data", "has_more", "next_cursor"}


def test_a_get_of_a_collection_is_a_list(document: dict[str, Any]) -> None:
    """No answer is a bare array: it could not grow a second member."""
    for method, path in OPERATIONS:
        for status, response in document["paths"][path][method]["responses"].items():
            content = response.get("content", {}).get("application/json")
            if status.startswith("2") and content is not None:
                assert content["schema"].get("type") != "array"


@pytest.mark.anyio
async def test_it_is_what_the_server_serves(document: dict[str, Any]) -> None:
    async with connect(create_app(Settings.model_construct())) as client:
        assert (await client.get("/openapi.json")).json() == document
