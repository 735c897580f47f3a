"""Requests to a server: deadlines on everything, no redirects, problem documents as errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx

from jangada.client.errors import NotSignedIn, ServerRefused, ServerUnavailable
from jangada.client.servers import is_this_machine
from jangada.errors import FieldError

TIMEOUT: Final = httpx.Timeout(30, connect=10)
FIRST_ERROR: Final = 300
UNAUTHORIZED: Final = 401
TRY_AGAIN: Final = frozenset({429, 502, 503, 504})


def open_http(server: str, auth: httpx.Auth | None = None) -> httpx.Client:
    """A client of one server. It follows no redirect: a token goes where it was meant for."""
    host = httpx.URL(server).host
    return httpx.Client(
        base_url=server,
        auth=auth,
        timeout=TIMEOUT,
        trust_env=not is_this_machine(host),  # no proxy leads to this machine
        follow_redirects=False,
    )


def ask(http: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - as httpx takes it
    """A request and its successful answer. Raises what a problem document stands for."""
    with reaching(http):
        return checked(http.request(method, path, **more))


@contextmanager
def reaching(http: httpx.Client) -> Iterator[None]:
    """Raises `ServerUnavailable` for whatever goes wrong on the way."""
    try:
        yield
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise ServerUnavailable(f"{http.base_url} cannot be reached: {reason}.") from error


def checked(response: httpx.Response) -> httpx.Response:
    """The answer itself when it is a success; otherwise raises what it stands for."""
    if response.status_code < FIRST_ERROR:
        return response
    response.read()
    raise _refusal(response)


def _refusal(response: httpx.Response) -> ServerRefused | ServerUnavailable | NotSignedIn:
    problem = _problem(response)
    if problem is None:
        return ServerUnavailable(
            f"{response.url} answered {response.status_code} without saying why. Is it the "
            f"address of a Jangada server?"
        )
    detail = f"{problem.get('detail')} [{problem['code']}, request {problem.get('request_id')}]"
    if response.status_code == UNAUTHORIZED:
        return NotSignedIn(detail)
    if response.status_code in TRY_AGAIN:
        return ServerUnavailable(detail)
    errors = [FieldError(**error) for error in problem.get("errors", ())]
    lines = (f"\n  {error.pointer}: {error.detail}" for error in errors)
    return ServerRefused(detail + "".join(lines), errors=errors)


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    document = response.json()
    return document if "code" in document else None
