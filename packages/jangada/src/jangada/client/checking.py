"""Whether a server does what it is for: somebody signs in, and a job of theirs runs to its end.

Guarantees: it goes the way of users, over HTTP alone; the account that it makes is erased whatever
happens in between, as long as the server lets it, and the job imports nothing. A server that can't
do a thing is a `CheckFailed` that names the thing, says what the server said, and where to look.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import httpx

from jangada.client.errors import CheckFailed, ServerUnavailable
from jangada.client.following import ENDED
from jangada.client.importing import PATH
from jangada.client.requests import ask, open_http
from jangada.errors import JangadaError

type Told = Callable[[str], None]

CONTACTS: Final = b"name,email\nJangada,check@example.com\n"
LOOK_AGAIN: Final = timedelta(seconds=0.5)
RUNBOOKS: Final = "docs/runbooks"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for the API to answer, and for the job to end."""

    answer: timedelta
    job: timedelta


def check(url: str, patience: Patience, told: Told) -> None:
    """Tell each thing that the server can do. Raises `CheckFailed` for the first that it can't."""
    with open_http(url) as http:
        with _thing("the API answers", f"{RUNBOOKS}/api-fails.md", told):
            _wait_for_answer(http, patience.answer)
        with (
            _account(http, told),
            _thing("a job runs to its end", f"{RUNBOOKS}/jobs-wait.md", told),
        ):
            _run_job(http, patience.job)


@contextmanager
def _thing(name: str, page: str, told: Told) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    except JangadaError as error:
        raise CheckFailed(
            f"The check found that this fails: {name}. {error.detail}\nWhat to do: {page}."
        ) from error
    told(f"ok: {name} ({time.monotonic() - began:.1f} s)")


def _wait_for_answer(http: httpx.Client, patience: timedelta) -> None:
    """The keys that tokens are signed with: it takes the database, and nobody signed in."""
    until = time.monotonic() + patience.total_seconds()
    while True:
        try:
            ask(http, "GET", "/.well-known/jwks.json")
        except ServerUnavailable:
            if time.monotonic() >= until:
                raise
        else:
            return
        time.sleep(LOOK_AGAIN.total_seconds())


@contextmanager
def _account(http: httpx.Client, told: Told) -> Iterator[None]:
    """Signed in to an account of our own, which is erased at the end."""
    who = {"email": f"check-{secrets.token_hex(8)}@example.com", "password": _password()}
    with _thing("an account is made", f"{RUNBOOKS}/api-fails.md", told):
        ask(http, "POST", "/v1/auth/register", json={**who, "name": "Check"})
    try:
        with _thing("it signs in", f"{RUNBOOKS}/api-fails.md", told):
            _sign_in(http, who)
        yield
    except BaseException:
        with suppress(JangadaError):  # what failed before is what counts
            _erase(http, who)
        raise
    with _thing("the account is erased", f"{RUNBOOKS}/api-fails.md", told):
        _erase(http, who)


def _password() -> str:
    """One that every policy takes which can be set, but for a `MIN_LENGTH` above 60."""
    return f"Aa1-{secrets.token_urlsafe(42)}"


def _sign_in(http: httpx.Client, who: Mapping[str, str]) -> None:
    tokens = ask(http, "POST", "/v1/auth/login", json=who).json()
    http.headers["Authorization"] = f"Bearer {tokens['access_token']}"


def _erase(http: httpx.Client, who: Mapping[str, str]) -> None:
    """Signed in anew: the token of before may be over, or was never given."""
    _sign_in(http, who)
    ask(http, "DELETE", "/v1/me", json={"password": who["password"]})


def _run_job(http: httpx.Client, patience: timedelta) -> None:
    """An import that is only validated. Raises `CheckFailed` where it doesn't complete in time."""
    kind, params = {"Content-Type": "text/csv"}, {"validate_only": "true"}
    job = ask(http, "POST", PATH, params=params, headers=kind, content=CONTACTS).json()
    until = time.monotonic() + patience.total_seconds()
    while job["state"] not in ENDED and time.monotonic() < until:
        time.sleep(LOOK_AGAIN.total_seconds())
        job = ask(http, "GET", f"/v1/jobs/{job['id']}").json()
    if job["state"] != "completed":
        raise CheckFailed(_why(job, patience))


def _why(job: dict[str, Any], patience: timedelta) -> str:
    if job["errors"]:
        last = job["errors"][-1]
        return f"The job is {job['state']}: {last['detail']} [{last['code']}]."
    if job["state"] in ENDED:
        return f"The job is {job['state']}."
    within = f"after {patience.total_seconds():g} s"
    if job["started_at"] is None:
        return (
            f"No worker has taken the job {within}. Do workers of the queue {job['queue']} run, "
            f"and a dispatcher?"
        )
    return f"The job still runs {within}."
