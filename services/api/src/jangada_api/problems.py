"""Errors as RFC 9457 problem documents: the one place where an error becomes a status.

Guarantees: every answer ≥ 400 is `application/problem+json` with a stable `code` and the request's
id; a 401 carries `WWW-Authenticate`, a 429 and a 503 carry `Retry-After`; what the caller did not
cause says nothing of our insides (the log line of the same request id does).
"""

import http
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

import orjson
import psycopg
import redis.exceptions
import sqlalchemy.exc
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.orm.exc import StaleDataError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from jangada.db_errors import translate
from jangada.errors import (
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    JangadaError,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
    json_pointer,
)
from jangada.telemetry import current_request_id, get_logger
from jangada_queue.errors import QueueUnavailable

log = get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
DEFAULT_RETRY: Final = timedelta(seconds=5)
CODE_IN_SCOPE: Final = "jangada.problem"

STATUS: Final[Mapping[type[JangadaError], int]] = {
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Invalid: 422,
    RateLimited: 429,
    Unavailable: 503,
}
"""The seven kinds. A subclass gives its own `code` and `detail`, never another status."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an HTTP status means where no error of the domain says more."""

    code: str
    detail: str


ANSWERS: Final[Mapping[int, Answer]] = {
    400: Answer("request.malformed", "The request cannot be understood."),
    401: Answer("request.unauthenticated", "Sign in first."),
    403: Answer("request.forbidden", "You may not do this."),
    404: Answer("route.not_found", "There is nothing at this address."),
    405: Answer("route.method_not_allowed", "This address does not know this method."),
    406: Answer("request.not_acceptable", "None of the accepted media types can be made."),
    408: Answer("request.timeout", "The request's body did not arrive in time."),
    413: Answer("request.too_large", "The request's body is larger than is allowed here."),
    415: Answer("request.unsupported_media_type", "The body's media type is not taken here."),
    422: Answer("request.invalid", "The request has invalid values; `errors` names each."),
    429: Answer("request.rate_limited", "Too many requests; try again later."),
    431: Answer("request.headers_too_large", "The request's headers are too large."),
    500: Answer("internal.error", "Something failed on our side. Quote the request id to us."),
    503: Answer("service.unavailable", "Something that this needs is away; try again later."),
}
"""What is answered where no error of the domain says more, mostly for the framework."""


class RequestRefused(HTTPException):
    """A request that HTTP itself has the answer to: too large, wrong media type, too slow."""

    def __init__(
        self, status: int, detail: str | None = None, *, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, detail or ANSWERS[status].detail, headers)


def too_large(limit: int) -> RequestRefused:
    """413. The connection is closed after it: whatever of the body is still under way is lost."""
    detail = f"The request's body is larger than the {limit:,} bytes that are allowed here."
    return RequestRefused(413, detail, headers={"Connection": "close"})


def unsupported_media_type(*accepted: str) -> RequestRefused:
    """415, naming what is taken instead."""
    detail = f"The body's media type is not taken here; send {' or '.join(accepted)}."
    return RequestRefused(415, detail, headers={"Accept": ", ".join(accepted)})


def refuse_content_encoding(request: Request) -> None:
    """Raise 415 for a body that isn't sent as it is: its length would bound nothing."""
    # All of them: a second header adds a coding, whatever the first one says.
    codings = ",".join(request.headers.getlist("content-encoding")).split(",")
    if any(coding.strip().lower() not in {"", "identity"} for coding in codings):
        detail = "Send the body without Content-Encoding."
        raise RequestRefused(415, detail, headers={"Accept-Encoding": "identity"})


class ConcurrentChange(Conflict):
    """Somebody else changed the same thing at the same moment; read it again, then try again."""

    code = "resource.concurrent_change"


class ValkeyUnavailable(Unavailable):
    """Valkey is away, and this cannot be answered without it."""

    code = "valkey.unavailable"


class Problem(Response):
    """An answer ≥ 400; the access log takes its `code` from it."""

    media_type = MEDIA_TYPE

    def __init__(self, document: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        super().__init__(orjson.dumps(document), document["status"], dict(headers))
        self.code: str = document["code"]


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> "Problem":
    """A problem document; `more` adds extension members."""
    document = {
        "type": f"urn:jangada:problem:{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": current_request_id(),
        "errors": [asdict(error) for error in errors],
        **(more or {}),
    }
    return Problem(document, headers or {})


def status_of(error: type[JangadaError]) -> int:
    """The status of an error's kind; subclasses inherit it."""
    return next(STATUS[kind] for kind in error.__mro__ if kind in STATUS)


def answer(status: int, *, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem document of a status that nothing more is known about."""
    known = ANSWERS.get(status) or ANSWERS[min(status // 100, 5) * 100]
    return problem(status, known.code, known.detail, headers=headers)


def _seconds(wait: timedelta) -> str:
    return str(max(1, math.ceil(wait.total_seconds())))


def _headers(error: JangadaError) -> dict[str, str]:
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": _challenge(error.code)}
    if error.retry_after is not None or isinstance(error, RateLimited | Unavailable):
        return {"Retry-After": _seconds(error.retry_after or DEFAULT_RETRY)}
    return {}


_BAD_TOKENS: Final = frozenset({"auth.token_invalid", "auth.token_expired", "auth.session_ended"})


def _challenge(code: str) -> str:
    """RFC 6750: the error is named only where a token was sent."""
    return 'Bearer realm="jangada"' + (', error="invalid_token"' if code in _BAD_TOKENS else "")


def from_error(error: JangadaError) -> Problem:
    if isinstance(error, Unavailable):
        log.warning("answered as unavailable", code=error.code, cause=error.__cause__)
    status, headers = status_of(type(error)), _headers(error)
    return problem(status, error.code, error.detail, errors=error.errors, headers=headers)


def _pointer(location: Sequence[int | str]) -> str:
    """Where a fault is, as `FieldError` says it; other places are named (`header:x`)."""
    place, *rest = location
    if rest[-1:] == ["[key]"]:  # so pydantic says that a member's name is wrong
        rest.pop()
    if place == "body":
        return json_pointer(rest)
    name = ".".join(str(part) for part in rest)
    return f"?{name}" if place == "query" else f"{place}:{name}"


def from_validation(error: RequestValidationError) -> Response:
    if isinstance(error.body, bytes) and error.body:
        return from_http(unsupported_media_type("application/json"))
    faults = []
    for fault in error.errors():
        if fault["type"] == "json_invalid":
            detail = f"no JSON: {fault['ctx']['error']} at offset {fault['loc'][-1]}"
            faults.append(FieldError("", fault["type"], detail))
        else:
            faults.append(FieldError(_pointer(fault["loc"]), fault["type"], fault["msg"]))
    known = ANSWERS[422]
    return problem(422, known.code, known.detail, errors=faults)


def from_http(error: HTTPException) -> Response:
    if error.status_code in {204, 304}:
        return Response(status_code=error.status_code, headers=error.headers)
    known = ANSWERS.get(error.status_code)
    if known is None:
        return answer(error.status_code, headers=error.headers)
    if isinstance(error, RequestRefused):
        detail = str(error.detail)
    else:
        detail = _unreadable(error.__cause__) or known.detail
    return problem(error.status_code, known.code, detail, headers=error.headers)


def _unreadable(error: BaseException | None) -> str | None:
    """Why a body couldn't be parsed, without any of it: RFC 8259, 8.1 and 9, lets us set limits."""
    if isinstance(error, UnicodeDecodeError):
        return f"The request's body is not {error.encoding}, from byte {error.start} on."
    if isinstance(error, RecursionError):
        return "The request's body is nested more deeply than can be read."
    if isinstance(error, ValueError) and "digits" in str(error):
        return "The request's body holds a number of more digits than can be read."
    return None


_UNSTORABLE_STATES: Final = frozenset({"22021", "22P05"})
_TRY_AGAIN_STATES: Final = frozenset({"40001", "40P01"})
_COLLISION_STATES: Final = frozenset({"23503", "23505", "23P01"})


def _from_database(error: sqlalchemy.exc.SQLAlchemyError | psycopg.Error) -> JangadaError | None:
    """A database error as an error of the domain, where it is not a fault of ours."""
    if isinstance(error, StaleDataError):
        return ConcurrentChange("Somebody else changed the same thing; try again.")
    original = getattr(error, "orig", error)
    state = getattr(original, "sqlstate", None)
    if state in _UNSTORABLE_STATES or _has_nul(original):
        return Invalid("It holds characters that cannot be stored.")
    if state in _COLLISION_STATES:
        return Conflict("It collides with what is there already.")
    if state in _TRY_AGAIN_STATES:
        return ConcurrentChange("Somebody else changed the same thing; try again.")
    if isinstance(error, sqlalchemy.exc.DBAPIError | sqlalchemy.exc.TimeoutError | psycopg.Error):
        return translate(error)
    return None


def _has_nul(error: object) -> bool:
    """Whether the driver refused a text itself: PostgreSQL has no NUL."""
    return isinstance(error, psycopg.DataError) and "NUL (0x00)" in str(error)


def expected(error: Exception) -> JangadaError | None:
    """The error of the domain that an exception of a library stands for; None for our own bugs."""
    if isinstance(error, JangadaError):
        return error
    if isinstance(error, sqlalchemy.exc.SQLAlchemyError | psycopg.Error):
        return _from_database(error)
    absent = (QueueUnavailable, redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
    if isinstance(error, absent):
        return ValkeyUnavailable("The fast path is away; try again later.")
    return None


def response_to(error: Exception) -> Response:
    """The answer to any exception; an unexpected one is logged with its traceback and is a 500."""
    if isinstance(error, HTTPException):
        return from_http(error)
    if isinstance(error, RequestValidationError):
        return from_validation(error)
    if (known := expected(error)) is not None:
        return from_error(known)
    log.error("request failed", exc_info=error)
    return answer(500)


async def _handle(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        error.headers = {"Allow": ", ".join(methods_at(request.app.routes, request.scope))}
    response = response_to(error)
    if isinstance(response, Problem):
        request.scope[CODE_IN_SCOPE] = response.code
    return response


def methods_at(routes: list[BaseRoute], scope: Scope) -> list[str]:
    """The methods that some route knows at this address (RFC 9110, 10.2.1).

    Below a mount, which no route of ours matches, there are files.
    """
    here = [route for route in routes if route.matches(scope)[0] is not Match.NONE]
    known = {method for route in here for method in getattr(route, "methods", None) or ()}
    known = known or {"GET"}
    return sorted(known | {"HEAD"} if "GET" in known else known)


HANDLED: Final[tuple[type[Exception], ...]] = (
    HTTPException,
    RequestValidationError,
    JangadaError,
    sqlalchemy.exc.SQLAlchemyError,
    psycopg.Error,
    QueueUnavailable,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
)


def install(app: Starlette) -> None:
    """Answer every exception of the routes with a problem document."""
    for kind in HANDLED:
        app.add_exception_handler(kind, _handle)
