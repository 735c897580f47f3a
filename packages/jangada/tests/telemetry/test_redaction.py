"""What redaction lets through. A canary is a value that must never be seen again."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import redis.exceptions
import sqlalchemy.exc
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg import errors as postgresql
from pydantic import BaseModel, EmailStr, SecretStr, ValidationError

from jangada.contacts.errors import UnknownMapping
from jangada.errors import NotFound
from jangada.telemetry.redaction import (
    MASK,
    WITHHELD,
    describe,
    describe_traceback,
    redact,
    scrub,
)

JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjYW5hcnkifQ.canary-signature"
RANDOM = "q7Zr0vX2bN5kYw8sLd3fGh6jPm1tRc4eUa9oVi2xQz"


@pytest.mark.parametrize(
    "text",
    [
        "sent to canary@example.org today",
        "sent to <canary@example.org>, today",
        'Key (email)=(canary@example.org) already exists: "x"',
        "mailto:canary@example.org",
        "email=canary@example.org&x=1",
        "cânary.canary+tag@exämple.org",
        '"canary canary"@example.org',
        "GET /users/canary%40example.org/x",
        "canary\\u0040example.org",
        "canary@localhost",
        f"token {JWT} refused",
        f"Authorization: Bearer {RANDOM}canary",
        "authorization: Basic Y2FuYXJ5OmNhbmFyeQ==canary",
        "postgresql://jangada:canary@db:5432/jangada",
        "redis://:canary@cache/0",
        "https://files/x?signature=canary&expires=3",
        "GET /v1/contacts/?q=canary HTTP/1.1",
        "password=canary",
        "password: 'canary with spaces'",
        '{"new_password": "canary", "x": 1}',
        "JANGADA_AUTH__MASTER_KEY=canary",
        "x-api-key: canary",
        "Set-Cookie: session=canary",
        "$argon2id$v=19$m=19456,t=2,p=1$canary$canary",
        "-----BEGIN PRIVATE KEY-----\ncanary\ncanary\n-----END PRIVATE KEY-----",
        f"refresh {RANDOM[:20]}canary{RANDOM[20:]}",
        "<Task finished exception=ValueError('canary')>",
    ],
)
def test_what_has_a_form_is_scrubbed(text: str) -> None:
    assert "canary" not in scrub(text)


@pytest.mark.parametrize(
    "text",
    [
        "request",
        "/v1/contacts/{id}",
        "0198f3f0-7c1e-7a52-9d52-7d5d7bcbf4a1",
        "worker started on 127.0.0.1:9000",
        "fk_contacts_tenant_id_import_id_contact_imports_tenant_id",
        "jobs.enqueue took 3 ms (limit: 50 ms)",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "what is a key?",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert scrub(text) == text


LOCAL = st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\.[a-z0-9]{1,9})?", fullmatch=True)
AROUND = st.text(st.sampled_from(" \n,;:()<>[]\"'={}abc01é@./\\%?&"), max_size=30)


@given(before=AROUND, local=LOCAL, after=AROUND)
@example(before="", local="a", after="")
def test_an_address_never_survives_its_surroundings(before: str, local: str, after: str) -> None:
    address = f"{local}@canary-domain.org"
    assert address not in scrub(f"{before}{address}{after}")


def test_long_text_is_cut() -> None:
    assert len(scrub("long words " * 10_000)) < 5_000


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("password", "canary", MASK),
        ("refresh_token", "canary", MASK),
        ("Authorization", "canary", MASK),
        ("email", "canary", MASK),
        ("headers", {"x": "canary"}, MASK),
        ("args", ["canary"], MASK),
        ("note", SecretStr("canary"), "<SecretStr>"),
        ("note", b"canary", "<bytes>"),
        ("note", SimpleNamespace(x="canary"), "<SimpleNamespace>"),
        ("note", {"password": "canary", "rows": 3}, {"password": MASK, "rows": 3}),
        ("note", [{"token": "canary"}, 1], [{"token": MASK}, 1]),
        ("note", {"canary@example.org": 1}, {MASK: 1}),
        ("note", ValueError("canary"), f"ValueError: {WITHHELD}"),
        ("note", Colour.RED, "red"),
        ("note", timedelta(seconds=1.5), 1.5),
        ("note", datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        ("note", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("note", Path("/data"), "/data"),
        ("note", int, "int"),
        ("note", None, None),
        ("note", True, True),
        ("note", 2.5, 2.5),
    ],
)
def test_a_value_is_reduced_to_plain_data(name: str, value: object, expected: object) -> None:
    assert redact(value, name) == expected


def test_nesting_and_length_are_bounded() -> None:
    deep: list[object] = ["leaf"]
    for _ in range(20):
        deep = [deep]
    assert "leaf" not in str(redact(deep))
    assert "[…]" in str(redact(deep))
    assert len(redact(list(range(1000)))) == 50  # type: ignore[arg-type]
    assert redact({"a": {"b": {"c": {"d": {"e": 1}}}}}) == {"a": {"b": {"c": {"d": "{…}"}}}}


class Account(BaseModel):
    email: EmailStr
    age: int


def caught(action: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as info:  # noqa: PT011 - any exception is the example
        action()
    return info.value


def raised(error: BaseException) -> BaseException:
    def fail() -> None:
        raise error

    return caught(fail)


class Violation(postgresql.UniqueViolation):
    """A server's report, as psycopg gives it."""

    @property
    def diag(self) -> Any:  # noqa: ANN401 - psycopg's own type cannot be made
        return SimpleNamespace(
            message_primary='duplicate key value violates unique constraint "uq_users_email"',
            message_detail="Key (email)=(canary@example.org) already exists.",
            constraint_name="uq_users_email",
            table_name="users",
        )


class Malformed(postgresql.InvalidTextRepresentation):
    @property
    def diag(self) -> Any:  # noqa: ANN401 - psycopg's own type cannot be made
        return SimpleNamespace(message_primary='invalid input syntax for type uuid: "canary"')


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("canary"), f"ValueError: {WITHHELD}"),
        (KeyError("canary"), f"KeyError: {WITHHELD}"),
        (RuntimeError("canary"), f"RuntimeError: {WITHHELD}"),
        (RuntimeError(), "RuntimeError"),
        (TypeError("f() missing 'x'"), "TypeError: f() missing 'x'"),
        (PermissionError(13, "denied", "/data"), "PermissionError: [Errno 13] denied: /data"),
        (OSError("canary"), f"OSError: {WITHHELD}"),
        (TimeoutError(), "TimeoutError"),
        (redis.exceptions.ConnectionError("refused"), "refused"),
        (redis.exceptions.ResponseError("args: 'canary'"), WITHHELD),
        (NotFound("No contact canary@example.org."), f"[resource.not_found] No contact {MASK}"),
        (UnknownMapping("No column 'canary'."), f"[import_file.unknown_mapping] {WITHHELD}"),
        (Violation("x DETAIL: canary"), "[23505] duplicate key value"),
        (Violation("x DETAIL: canary"), "constraint=uq_users_email table=users"),
        (Malformed('invalid input: "canary"'), "[22P02]"),
        (postgresql.ProgrammingError("canary"), WITHHELD),
        (
            sqlalchemy.exc.IntegrityError("INSERT 'canary'", {"p": "canary"}, Violation("canary")),
            "constraint=uq_users_email",
        ),
        (sqlalchemy.exc.StatementError("canary", "canary", {}, ValueError("canary")), WITHHELD),
        (sqlalchemy.exc.TimeoutError("QueuePool limit"), "QueuePool limit"),
    ],
)
def test_an_exception_says_what_holds_no_data(error: BaseException, said: str) -> None:
    assert said in describe(error)
    assert "canary" not in describe_traceback(raised(error))


def test_a_validation_error_names_the_faults_and_no_input() -> None:
    error = caught(lambda: Account.model_validate({"email": "canary", "age": "canary"}))
    assert isinstance(error, ValidationError)
    assert describe(error).endswith("ValidationError: int_parsing, value_error")
    assert "canary" not in describe_traceback(error)


def test_a_traceback_tells_causes_groups_and_places_but_no_source() -> None:
    def inner(password: str) -> None:
        raise ValueError(f"bad {password}")

    def outer() -> None:
        try:
            inner("canary")
        except ValueError as error:
            error.add_note("canary")
            raise ExceptionGroup("canary", [KeyError("canary"), TypeError("of int")]) from error

    text = describe_traceback(caught(outer))
    assert "canary" not in text
    assert "inner" in text
    assert __file__ in text
    assert text.index("ValueError") < text.index("which led to") < text.index("ExceptionGroup")
    assert "  | TypeError: of int" in text


def test_a_circular_or_endless_traceback_ends() -> None:
    first, second = ValueError("canary"), KeyError("canary")
    first.__cause__, second.__cause__ = second, first
    assert describe_traceback(first).count("ValueError") == 1

    def forever() -> None:
        forever()

    report = describe_traceback(caught(forever))
    assert "frames left out" in report
    assert len(report) < 20_000
