"""The account that a check makes: each policy takes its password, and it is erased at the end."""

import httpx
import pytest

from jangada.accounts.passwords import PasswordPolicy
from jangada.auth_settings import PasswordSettings
from jangada.client import checking
from jangada.client.errors import CheckFailed

STRICTEST = PasswordSettings(
    min_length=60,
    max_bytes=64,
    require_lower=True,
    require_upper=True,
    require_digit=True,
    require_symbol=True,
)


def test_each_policy_takes_its_password() -> None:
    policy = PasswordPolicy(STRICTEST)
    drawn = [checking._password() for _ in range(50)]
    who = {"name": "Check", "email": "check@example.com"}
    assert [fault for each in drawn for fault in policy.faults(each, **who)] == []


def test_the_account_is_erased_also_where_it_couldn_t_sign_in_at_first() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        if asked.count("POST /v1/auth/login") == 1 and asked[-1] == "POST /v1/auth/login":
            return httpx.Response(429, json={"code": "auth.throttled", "detail": "Later."})
        return httpx.Response(200, json={"access_token": "t"})

    with (
        httpx.Client(base_url="http://api.test", transport=httpx.MockTransport(answer)) as http,
        pytest.raises(CheckFailed, match="it signs in"),
        checking._account(http, lambda _: None),
    ):
        pytest.fail("nobody is signed in")
    assert asked == [
        "POST /v1/auth/register",
        "POST /v1/auth/login",
        "POST /v1/auth/login",
        "DELETE /v1/me",
    ]
