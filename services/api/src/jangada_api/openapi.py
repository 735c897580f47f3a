"""The OpenAPI document: FastAPI's, completed with what it cannot know.

Every operation documents the problem documents that it may answer with, and has an example of each
JSON body; the examples are those of the models (`json_schema_extra`), so they are written once.
"""

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import BaseRoute

from jangada.errors import JangadaError
from jangada_api.problems import ANSWERS, MEDIA_TYPE, status_of

type Json = dict[str, Any]

VERSION: Final = "3.1.0"
DESCRIPTION: Final = """\
A multi-tenant API with durable background jobs.

- Sign in with `POST /v1/auth/login`, then send `Authorization: Bearer …`.
- Lists are pages: pass `next_cursor` as `cursor`, with the same filter and sort.
- Every answer ≥ 400 is a problem document (RFC 9457) with a stable `code` (`docs/errors.md`).
- Every answer has an `X-Request-ID`; send one of your own to find it in the logs.
"""
HEADERS: Final[Mapping[str, str]] = {
    "X-Request-ID": "What names the request in our logs: yours, or a new one.",
    "Location": "Where what was made is found.",
    "Retry-After": "After so many seconds it may be tried again.",
    "WWW-Authenticate": "How to sign in, and whether a token was refused (RFC 6750).",
}
METHODS: Final = ("get", "post", "put", "patch", "delete")


class Fault(BaseModel):
    """One fault in the request."""

    pointer: str = Field(
        description="A JSON pointer into the body (`/email`), or `?name` of a query parameter."
    )
    code: str
    detail: str


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:jangada:problem:job.not_found",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "There is no job 0198f3f0-7c1e-7a52-9d52-7d5d7bcbf4a1.",
                    "code": "job.not_found",
                    "request_id": "0198f3f0-8a11-7c66-8b1e-0d6b3c1d2e4f",
                    "errors": [],
                }
            ]
        },
    )

    type: str = Field(description="`urn:jangada:problem:` and the code.")
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What is wrong this time, for a person.")
    code: str = Field(description="What is wrong, for a program: it never changes.")
    request_id: str | None = Field(description="Quote it when you ask us.")
    errors: list[Fault] = Field(description="Each fault of an invalid request.")


def documented(*errors: type[JangadaError]) -> dict[int | str, Json]:
    """`responses=` of a route that raises these errors: each by its code."""
    found: dict[int | str, Json] = {}
    for error in errors:
        status = status_of(error)
        answer = found.setdefault(status, _answer(status, examples={}))
        detail = (error.__doc__ or HTTPStatus(status).phrase).strip().splitlines()[0]
        answer["content"][MEDIA_TYPE]["examples"][error.code] = {
            "value": _example(status, error.code, detail)
        }
    return found


def document(title: str, routes: Sequence[BaseRoute]) -> Json:
    """The whole document."""
    made = get_openapi(
        title=title,
        version=version("jangada-api"),
        openapi_version=VERSION,
        description=DESCRIPTION,
        routes=routes,
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["ProblemDocument"] = problem
    for operation in operations(made):
        _summarise(operation)
        _describe_streams(operation)
        _document_problems(operation)
        _give_examples(operation, schemas)
        _document_headers(operation)
    made["components"]["headers"] = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()
    }
    for model in schemas.values():
        if "examples" in model:
            model["examples"] = [_with_nulls(each, model, schemas) for each in model["examples"]]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return made


def operations(made: Json) -> Iterator[Json]:
    """Every operation of a document."""
    for path in made["paths"].values():
        yield from (path[method] for method in METHODS if method in path)


def _summarise(operation: Json) -> None:
    """The first line of the route's docstring is its summary, the rest its description."""
    first, _, rest = operation.get("description", "").partition("\n")
    if first:
        operation["summary"] = first.rstrip(".")
        operation["description"] = rest.strip()


def _describe_streams(operation: Json) -> None:
    """FastAPI describes the items of a stream in OpenAPI 3.2's words; 3.1 knows a text only."""
    for response in operation["responses"].values():
        for content in response.get("content", {}).values():
            if content.pop("itemSchema", None) is not None:
                content["schema"] = {"type": "string"}


def _document_problems(operation: Json) -> None:
    responses = operation["responses"]
    if _is_made_by_fastapi(responses.get("422")):
        del responses["422"]
    for status in _usual_statuses(operation):
        if str(status) not in responses:
            known = ANSWERS[status]
            example = {known.code: {"value": _example(status, known.code, known.detail)}}
            responses[str(status)] = _answer(status, examples=example)
    responses.setdefault("default", _answer(500, examples={}) | {"description": "Any other error."})
    operation["responses"] = dict(sorted(responses.items()))


def _document_headers(operation: Json) -> None:
    for status, response in operation["responses"].items():
        known = {name: {"$ref": f"#/components/headers/{name}"} for name in _sent(status, response)}
        response["headers"] = known | response.get("headers", {})


def _sent(status: str, response: Json) -> Iterator[str]:
    """The headers that every answer of this status has; a job that was accepted has its place."""
    yield "X-Request-ID"
    if status == "201" or (status == "202" and "/JobOut" in str(response)):
        yield "Location"
    if status in {"429", "503"}:
        yield "Retry-After"
    if status == "401":
        yield "WWW-Authenticate"


def _is_made_by_fastapi(response: Json | None) -> bool:
    return "HTTPValidationError" in str(response)


def _usual_statuses(operation: Json) -> Iterator[int]:
    """What any operation of this shape may answer."""
    if operation.get("security"):
        yield 401
    if "requestBody" in operation:
        yield from (400, 413, 415)
    yield from (422, 500, 503)


def _answer(status: int, *, examples: Json) -> Json:
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    content: Json = {"schema": schema, "examples": examples}
    return {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: content}}


def _example(status: int, code: str, detail: str) -> Json:
    return {
        "type": f"urn:jangada:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": "0198f3f0-8a11-7c66-8b1e-0d6b3c1d2e4f",
        "errors": [],
    }


def _give_examples(operation: Json, schemas: Json) -> None:
    """Put the model's example beside each JSON body that has none of its own."""
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for content in (content for body in bodies for content in body.get("content", {}).values()):
        schema = content.get("schema", {})
        if not content.get("examples") and "example" not in content:
            content.pop("examples", None)
            if (found := _model_example(schema, schemas)) is not None:
                content["example"] = found
        for holder in (content, *content.get("examples", {}).values()):
            for name in {"example", "value"} & set(holder):
                holder[name] = _with_nulls(holder[name], schema, schemas)


def _model(schema: Json, schemas: Json) -> Json:
    """The schema itself, the one that it refers to, or the first of those that it may be."""
    schema = next(iter(schema.get("anyOf", ())), schema)
    name = schema.get("$ref", "").removeprefix("#/components/schemas/")
    found: Json = schemas.get(name, schema)
    return found


def _model_example(schema: Json, schemas: Json) -> object | None:
    model = _model(schema, schemas)
    if model.get("examples"):
        first: object = model["examples"][0]
        return first
    items = model.get("properties", {}).get("data", {}).get("items")
    if items is None:
        return None
    item = _model_example(items, schemas)
    return None if item is None else {"data": [item], "has_more": False, "next_cursor": None}


def _with_nulls(example: object, schema: Json, schemas: Json) -> object:
    """The example with the members that are null, which FastAPI leaves out."""
    model = _model(schema, schemas)
    if isinstance(example, list):
        return [_with_nulls(item, model.get("items", {}), schemas) for item in example]
    if not isinstance(example, dict):
        return example
    properties = model.get("properties", {})
    whole = dict.fromkeys(model.get("required", ())) | example
    return {key: _with_nulls(whole[key], properties.get(key, {}), schemas) for key in whole}
