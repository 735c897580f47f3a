"""Accounts over HTTP, as a client sees them."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from jangada.auth_settings import ThrottleSettings
from jangada.config import Settings, ValkeySettings
from jangada.db import new_id
from jangada.runtime import open_runtime
from jangada.testing import eventually
from jangada_api.app import create_app
from jangada_api.testing import LogLines, connect

pytestmark = pytest.mark.anyio

EMAIL = "ana@example.com"
PASSWORD = "the tide goes out at six"
NEXT = "another tide, another raft"


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that is signed in."""

    client: httpx.AsyncClient
    access_token: str
    refresh_token: str

    async def send(self, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - httpx's
        headers = {"Authorization": f"Bearer {self.access_token}"}
        return await self.client.request(method, path, headers=headers, **more)


async def register(client: httpx.AsyncClient, email: str = EMAIL, **more: object) -> httpx.Response:
    body = {"email": email, "name": "Ana Lima", "password": PASSWORD, **more}
    return await client.post("/v1/auth/register", json=body)


async def log_in(
    client: httpx.AsyncClient, email: str = EMAIL, password: str = PASSWORD
) -> httpx.Response:
    return await client.post("/v1/auth/login", json={"email": email, "password": password})


async def sign_in(client: httpx.AsyncClient, email: str = EMAIL) -> Caller:
    answer = await log_in(client, email)
    assert answer.status_code == 200, answer.text
    return Caller(client, answer.json()["access_token"], answer.json()["refresh_token"])


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/v1/auth/refresh", json={"refresh_token": token})


@pytest.fixture
async def ana(client: httpx.AsyncClient) -> Caller:
    assert (await register(client)).status_code == 201
    return await sign_in(client)


async def test_registering_answers_with_the_account(client: httpx.AsyncClient) -> None:
    answer = await register(client, "Ana@Example.com")
    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/me"
    account = answer.json()
    assert set(account) == {"id", "email", "name", "created_at"}
    assert account["email"] == "Ana@example.com"
    assert account["id"][14] == "7"


@pytest.mark.parametrize("spelling", [EMAIL, "ANA@EXAMPLE.COM", " Ana@Example.com "])
async def test_an_address_has_one_account(client: httpx.AsyncClient, spelling: str) -> None:
    await register(client)
    answer = await register(client, spelling)
    assert (answer.status_code, answer.json()["code"]) == (409, "account.email_taken")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/email"]


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"password": "too short"}, "/password", "password.too_short"),
        ({"password": "passwordpassword"}, "/password", "password.common"),
        ({"password": "Ana Lima Ana Lima"}, "/password", "password.personal"),
        ({"password": "x" * 5000}, "/password", "too_long"),
        ({"email": "no address"}, "/email", "account.email_invalid"),
        ({"name": ""}, "/name", "string_too_short"),
        ({"name": "nul\x00"}, "/name", "value_error"),
        ({"name": None}, "/name", "string_type"),
        ({"is_admin": True}, "/is_admin", "extra_forbidden"),
    ],
)
async def test_a_wrong_registration_names_the_field(
    client: httpx.AsyncClient, change: dict[str, Any], pointer: str, code: str
) -> None:
    answer = await register(client, **change)
    assert answer.status_code == 422
    assert (pointer, code) in {(e["pointer"], e["code"]) for e in answer.json()["errors"]}


async def test_text_that_is_no_unicode_is_refused(client: httpx.AsyncClient) -> None:
    fields = {"email": EMAIL, "name": "Ana Lima", "password": PASSWORD}
    for name, value in fields.items():
        body = json.dumps({**fields, name: value[:4] + "\ud800" + value[4:]}).encode()
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/v1/auth/register", content=body, headers=headers)
        assert (name, answer.status_code) == (name, 422)


async def test_login_answers_with_a_token_that_the_published_keys_verify(ana: Caller) -> None:
    answer = await log_in(ana.client, "ANA@example.com")
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    assert set(tokens) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)

    published = await ana.client.get("/.well-known/jwks.json")
    assert published.headers["cache-control"] == "public, max-age=300"
    key = jwt.PyJWKSet.from_dict(published.json())[
        jwt.get_unverified_header(ana.access_token)["kid"]
    ]
    claims = jwt.decode(
        ana.access_token, key, algorithms=["EdDSA"], audience="jangada", issuer="jangada"
    )
    me = (await ana.send("GET", "/v1/me")).json()
    assert (claims["sub"], claims["tid"], claims["roles"]) == (me["id"], me["tenant_id"], ["owner"])
    assert {"sid", "jti", "typ", "iat", "nbf", "exp"} <= set(claims)


async def test_unknown_address_and_wrong_password_are_answered_alike(ana: Caller) -> None:
    answers = [
        await log_in(ana.client, EMAIL, "not the password at all"),
        await log_in(ana.client, "nobody@example.com", "not the password at all"),
    ]
    said = [{k: v for k, v in a.json().items() if k != "request_id"} for a in answers]
    assert [a.status_code for a in answers] == [401, 401]
    assert said[0] == said[1]
    assert said[0]["code"] == "auth.sign_in_failed"
    assert set(answers[0].headers) == set(answers[1].headers)


async def test_ones_own_account_is_read_and_renamed(ana: Caller) -> None:
    answer = await ana.send("PATCH", "/v1/me", json={"name": "Ana L."})
    assert answer.status_code == 200
    assert (await ana.send("GET", "/v1/me")).json() == answer.json()
    assert answer.json()["name"] == "Ana L."
    assert answer.json()["roles"] == ["owner"]
    for name, value in (("email", "eve@example.com"), ("name", None), ("name", 5), ("name", " ")):
        refused = await ana.send("PATCH", "/v1/me", json={name: value})
        assert refused.status_code == 422
        assert [fault["pointer"] for fault in refused.json()["errors"]] == [f"/{name}"]


async def test_a_refresh_rotates_and_a_burst_agrees(ana: Caller) -> None:
    answers = await asyncio.gather(*(refresh(ana.client, ana.refresh_token) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert answers[0].json()["refresh_token"] != ana.refresh_token


async def test_logout_kills_both_tokens_at_once(ana: Caller) -> None:
    assert (await ana.send("POST", "/v1/auth/logout")).status_code == 204
    answer = await ana.send("GET", "/v1/me")
    assert (answer.status_code, answer.json()["code"]) == (401, "auth.session_ended")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    answer = await refresh(ana.client, ana.refresh_token)
    assert (answer.status_code, answer.json()["code"]) == (401, "auth.refresh_refused")


async def test_logout_takes_the_refresh_token_too_and_says_nothing_of_it(ana: Caller) -> None:
    for token in (ana.refresh_token, ana.refresh_token, "jgr_nonsense"):
        answer = await ana.client.post("/v1/auth/logout", json={"refresh_token": token})
        assert answer.status_code == 204
    assert (await ana.send("GET", "/v1/me")).status_code == 401
    assert (await ana.client.post("/v1/auth/logout")).json()["code"] == "auth.token_missing"


async def test_logout_with_both_tokens_ends_the_session_of_each(ana: Caller) -> None:
    other = await sign_in(ana.client)
    bodies = [{"refresh_token": token} for token in ("jgr_stale", other.refresh_token)]
    for body, caller in zip(bodies, (await sign_in(ana.client), ana), strict=True):
        assert (await caller.send("POST", "/v1/auth/logout", json=body)).status_code == 204
        assert (await caller.send("GET", "/v1/me")).status_code == 401
    assert (await other.send("GET", "/v1/me")).status_code == 401
    ended = await ana.send("POST", "/v1/auth/logout", json=bodies[0])
    assert ended.status_code == 204


async def test_sessions_are_listed_and_ended(ana: Caller) -> None:
    other = await sign_in(ana.client)
    listed = (await other.send("GET", "/v1/me/sessions")).json()
    assert [row["is_current"] for row in listed["data"]] == [True, False]
    assert listed["data"][0]["address"] == "203.0.113.7"
    assert (listed["has_more"], listed["next_cursor"]) == (False, None)

    first = listed["data"][1]["id"]
    assert (await other.send("GET", f"/v1/me/sessions/{first}")).json() == listed["data"][1]
    assert (await other.send("DELETE", f"/v1/me/sessions/{first}")).status_code == 204
    assert (await ana.send("GET", "/v1/me")).status_code == 401
    for gone in (first, new_id()):
        answer = await other.send("DELETE", f"/v1/me/sessions/{gone}")
        assert (answer.status_code, answer.json()["code"]) == (404, "session.not_found")


async def test_a_strangers_session_is_not_found(ana: Caller) -> None:
    await register(ana.client, "bia@example.com")
    bia = await sign_in(ana.client, "bia@example.com")
    theirs = (await bia.send("GET", "/v1/me/sessions")).json()["data"][0]["id"]
    for method in ("GET", "DELETE"):
        assert (await ana.send(method, f"/v1/me/sessions/{theirs}")).status_code == 404
    assert (await bia.send("GET", "/v1/me")).status_code == 200


async def test_all_sessions_can_be_ended_at_once(ana: Caller) -> None:
    callers = [ana, *[await sign_in(ana.client) for _ in range(3)]]
    assert (await ana.send("DELETE", "/v1/me/sessions")).status_code == 204
    assert {(await c.send("GET", "/v1/me")).status_code for c in callers} == {401}


async def test_changing_the_password(ana: Caller) -> None:
    other = await sign_in(ana.client)
    wrong = {"current_password": "not the password", "new_password": NEXT}
    answer = await ana.send("POST", "/v1/me/password", json=wrong)
    assert (answer.status_code, answer.json()["code"]) == (403, "account.password_wrong")
    assert answer.json()["errors"][0]["pointer"] == "/current_password"

    weak = {"current_password": PASSWORD, "new_password": "too short"}
    answer = await ana.send("POST", "/v1/me/password", json=weak)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/new_password")

    good = {"current_password": PASSWORD, "new_password": NEXT}
    assert (await ana.send("POST", "/v1/me/password", json=good)).status_code == 204
    assert (await ana.send("GET", "/v1/me")).status_code == 200
    assert (await other.send("GET", "/v1/me")).status_code == 401
    assert (await log_in(ana.client)).status_code == 401
    assert (await log_in(ana.client, password=NEXT)).status_code == 200


async def test_deleting_the_account(ana: Caller) -> None:
    answer = await ana.send("DELETE", "/v1/me", json={"password": "not the password"})
    assert (answer.status_code, answer.json()["code"]) == (403, "account.password_wrong")
    assert (await ana.send("DELETE", "/v1/me")).status_code == 422

    answer = await ana.send("DELETE", "/v1/me", json={"password": PASSWORD})
    assert answer.status_code == 202
    assert set(answer.json()["erasing"]) == {"contacts", "files", "jobs"}
    assert (await ana.send("GET", "/v1/me")).status_code == 401
    assert (await log_in(ana.client)).status_code == 401
    assert (await register(ana.client)).status_code == 201


def forgeries(caller: Caller) -> dict[str, list[tuple[str, str]]]:
    head, body, signature = caller.access_token.split(".")
    good = ("Authorization", f"Bearer {caller.access_token}")
    return {
        "refresh token": [("Authorization", f"Bearer {caller.refresh_token}")],
        "another signature": [("Authorization", f"Bearer {head}.{body}.{signature[::-1]}")],
        "no signature": [("Authorization", f"Bearer {head}.{body}.")],
        "nothing": [("Authorization", "Bearer")],
        "a space": [("Authorization", "Bearer  ")],
        "not ascii": [("Authorization", "Bearer é")],
        "basic": [("Authorization", "Basic YW5hOnNlY3JldA==")],
        "no scheme": [("Authorization", caller.access_token)],
        "two headers": [good, good],
        "two tokens": [("Authorization", f"Bearer {caller.access_token}, Bearer x")],
        "too long": [("Authorization", "Bearer " + "a" * 10_000)],
    }


async def test_what_is_no_access_token_is_refused(ana: Caller) -> None:
    for name, headers in forgeries(ana).items():
        encoded = [(key, value.encode("latin-1")) for key, value in headers]
        answer = await ana.client.get("/v1/me", headers=encoded)  # type: ignore[arg-type] # bytes are fine
        found = (name, answer.status_code, answer.json()["code"])
        assert found == (name, 401, "auth.token_invalid")


async def test_a_token_counts_in_the_header_only(ana: Caller) -> None:
    for more in (
        {"params": {"access_token": ana.access_token}},
        {"headers": {"Cookie": f"access_token={ana.access_token}"}},
        {"headers": {"X-Access-Token": ana.access_token}},
    ):
        async with connect(ana.client._transport.app) as fresh:  # type: ignore[attr-defined]
            answer = await fresh.request("GET", "/v1/me", **more)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["code"]) == (401, "auth.token_missing")


async def test_the_schemes_name_has_no_case(ana: Caller) -> None:
    headers = {"Authorization": f"bearer {ana.access_token}"}
    assert (await ana.client.get("/v1/me", headers=headers)).status_code == 200


async def test_every_operation_that_says_so_asks_for_a_token(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    """From the document, so that a new route is covered on the day it is written."""
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            if {"access_token": []} not in operation.get("security", []):
                continue
            url = re.sub(r"{\w+}", str(new_id()), path)
            answer = await client.request(method, url, headers={"Authorization": "Bearer forged"})
            assert answer.status_code == 401, (method, path)
            assert operation["security"][0] == {"access_token": []}


@pytest.fixture
async def strict(settings: Settings) -> AsyncIterator[FastAPI]:
    """An API with low limits behind a proxy that it trusts."""
    throttle = ThrottleSettings(account_failures=3, address_failures=5)
    auth = settings.auth.model_copy(update={"throttle": throttle})
    api = settings.api.model_validate({"trusted_proxies": "203.0.113.0/24"})
    async with started(settings.model_copy(update={"auth": auth, "api": api})) as app:
        yield app


class started:  # noqa: N801 - used as a function
    """An API process of its own on the same servers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> FastAPI:
        runtime = await self._stack.enter_async_context(open_runtime(self._settings))
        app = create_app(self._settings, runtime=runtime)
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        return app

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()


async def test_too_many_failures_are_429_with_the_time_to_wait(strict: FastAPI) -> None:
    async with connect(strict) as client:
        said = [await log_in(client, "nobody@example.com") for _ in range(4)]
    assert [answer.status_code for answer in said] == [401, 401, 401, 429]
    assert said[-1].json()["code"] == "auth.throttled"
    assert 0 < int(said[-1].headers["retry-after"]) <= 900


async def test_the_address_that_a_trusted_proxy_forwards_is_throttled(strict: FastAPI) -> None:
    async def statuses(forwarded: str) -> list[int]:
        async with connect(strict, headers={"X-Forwarded-For": forwarded}) as client:
            found = [await log_in(client, f"{new_id().hex}@example.com") for _ in range(6)]
        return [answer.status_code for answer in found]

    assert await statuses("198.51.100.1") == [401] * 5 + [429]
    assert await statuses("198.51.100.2") == [401] * 5 + [429]
    assert await statuses("9.9.9.9, 198.51.100.2") == [429] * 6


async def test_a_full_pool_of_hashes_is_503_with_the_time_to_wait(settings: Settings) -> None:
    tight = settings.auth.hash.model_copy(update={"workers": 1, "queue": 1})
    auth = settings.auth.model_copy(update={"hash": tight})
    async with started(settings.model_copy(update={"auth": auth})) as app, connect(app) as client:
        answers = await asyncio.gather(
            *(log_in(client, f"person{n}@example.com") for n in range(20))
        )
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {401, 503}
    shed = answers[statuses.index(503)]
    assert (shed.json()["code"], shed.headers["retry-after"]) == ("auth.busy", "1")


async def test_logout_reaches_another_api_with_valkey_flushed_and_stopped(
    ana: Caller, settings: Settings
) -> None:
    """Sign-in at one process, requests at another that has no Valkey: 401 within the promise."""
    nowhere = ValkeySettings(url=SecretStr("unix:///nonexistent/valkey.sock?db=0"))
    without = settings.model_copy(update={"valkey": nowhere})
    async with started(without) as app, connect(app) as client:
        there = Caller(client, ana.access_token, ana.refresh_token)
        await eventually(lambda: app.state.accounts.revocations.is_fresh)
        assert (await there.send("GET", "/v1/me")).status_code == 200
        await ana.send("POST", "/v1/auth/logout")

        async def is_refused() -> bool:
            return (await there.send("GET", "/v1/me")).status_code == 401

        await eventually(is_refused)


async def test_no_secret_reaches_a_log_line(client: httpx.AsyncClient, log_lines: LogLines) -> None:
    """Canaries in every field of every route, in good requests and in failing ones, at DEBUG."""
    email, name = "canary.person@example.com", "Canary Person"
    secrets = [email, "canary", "the tide goes out", "another tide", "nosuchpassword"]
    await register(client, email, name=name)
    await register(client, email.upper(), name=name)
    await register(client, f"{email}@", name=name)
    await register(client, email, name="canary\x00")
    await log_in(client, email, "nosuchpassword at all")
    caller = await sign_in(client, email)
    secrets += [caller.access_token, caller.refresh_token]
    renewed = (await refresh(client, caller.refresh_token)).json()
    secrets += [renewed["access_token"], renewed["refresh_token"]]
    bodies: list[dict[str, Any]] = [
        {"password": "nosuchpassword"},
        {"current_password": "nosuchpassword", "new_password": NEXT},
        {"current_password": PASSWORD, "new_password": "canary"},
        {"current_password": PASSWORD, "new_password": NEXT},
        {"refresh_token": caller.refresh_token[:-1]},
        {"name": "canary"},
        {"email": email, "password": ["canary"]},
    ]
    for path in ("/v1/me", "/v1/me/password", "/v1/auth/login", "/v1/auth/refresh"):
        for method in ("POST", "PATCH", "DELETE"):
            for body in bodies:
                await caller.send(method, path, json=body)
    await client.get("/v1/me", params={"token": caller.access_token, "email": email})
    await client.get(f"/v1/me/sessions/{caller.refresh_token}")
    written = log_lines.text().lower()
    assert "access" in written
    assert [secret for secret in secrets if secret.lower() in written] == []


async def test_the_document_shows_each_operation_with_an_example(app: FastAPI) -> None:
    document = app.openapi()
    scheme = document["components"]["securitySchemes"]["access_token"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    paths = [path for path in document["paths"] if "/auth/" in path or "/me" in path]
    assert len(paths) == 8
    for path in paths:
        for operation in document["paths"][path].values():
            assert operation["summary"]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            assert body is None or body.get("example") or body["examples"]
    tokens = document["paths"]["/v1/auth/login"]["post"]["responses"]
    assert {"200", "401", "422", "429", "503"} <= set(tokens)
