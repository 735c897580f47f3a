"""What becomes of a request that sends a file: refused unread, streamed, or nothing."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.types import Message, Scope

from jangada.config import Settings
from jangada.runtime import Runtime
from jangada.testing import Person
from jangada_api.app import create_app
from jangada_api.testing import SignIn, connect

pytestmark = pytest.mark.anyio

PATH = "/test/uploads"
CSV = b"name;email\r\nAna;ana@example.com\r\n"
FORM = "multipart/form-data; boundary=frontier"


def server_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "upload_server", Path(__file__).with_name("upload_server.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def form(*parts: tuple[str, bytes], end: bytes = b"--frontier--\r\n") -> bytes:
    body = b"".join(
        b"--frontier\r\n" + headers.encode() + b"\r\n\r\n" + content + b"\r\n"
        for headers, content in parts
    )
    return body + end


def file_part(content: bytes = CSV, name: str = "contacts.csv") -> tuple[str, bytes]:
    disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    return f"{disposition}\r\nContent-Type: text/csv; charset=utf-8", content


@pytest.fixture
def app(app: FastAPI) -> FastAPI:
    app.include_router(server_module().router)
    return app


@pytest.fixture
async def caller(app: FastAPI, person: Person, sign_in: SignIn) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(app, headers=await sign_in(person)) as client:
        yield client


async def rows(runtime: Runtime) -> int:
    async with runtime.database.system_transaction("test") as session:
        count = "SELECT (SELECT count(*) FROM files) + (SELECT count(*) FROM deleted_blobs)"
        return int(await session.scalar(text(count)) or 0)


def stored(settings: Settings) -> list[bytes]:
    root = Path(settings.storage.url.removeprefix("file://"))
    return [path.read_bytes() for path in root.rglob("*") if path.is_file()]


async def assert_nothing_left(runtime: Runtime) -> None:
    assert await rows(runtime) == 0
    assert stored(runtime.settings) == []


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_raw_body_is_stored_as_it_is(caller: httpx.AsyncClient, settings: Settings) -> None:
    response = await caller.post(PATH, content=CSV, headers={"Content-Type": "text/csv"})
    assert response.status_code == 201
    assert response.json() | {"id": ""} == {
        "id": "",
        "name": "upload",
        "media_type": "text/csv",
        "size_bytes": len(CSV),
    }
    assert stored(settings) == [CSV]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_a_raw_body_may_say_its_name(caller: httpx.AsyncClient, encoding: str) -> None:
    headers = {
        b"Content-Type": b"text/csv",
        b"Content-Disposition": 'attachment; filename="../março.csv"'.encode(encoding),
    }
    response = await caller.post(PATH, content=CSV, headers=headers)
    assert response.json()["name"] == "março.csv"


async def test_the_file_of_a_form_is_stored_without_its_frame(
    caller: httpx.AsyncClient, settings: Settings
) -> None:
    content = CSV * 10_000
    response = await caller.post(PATH, files={"file": ("contatos.csv", content, "text/csv")})
    assert response.status_code == 201
    assert response.json()["name"] == "contatos.csv"
    assert response.json()["media_type"] == "text/csv"
    assert stored(settings) == [content]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("a\x00b\x1b[31m.csv", "ab[31m.csv"),
        ("\u202egpj.exe", "gpj.exe"),
        ("..", "upload"),
        ("", "upload"),
        ("we<i>rd|.csv", "we_i_rd_.csv"),
    ],
)
async def test_a_name_is_no_path(caller: httpx.AsyncClient, sent: str, kept: str) -> None:
    headers = {"Content-Type": FORM}
    response = await caller.post(PATH, content=form(file_part(name=sent)), headers=headers)
    assert response.json()["name"] == kept


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (form(), "The form has no field `file`."),
        (form(("Content-Disposition: form-data; name=other", b"x")), "as the field `file`"),
        (form(("Content-Type: text/csv", CSV)), "as the field `file`"),
        (form(file_part(), file_part()), "one part only"),
        (form(file_part(), ("Content-Disposition: form-data; name=x", b"")), "one part only"),
        (form(file_part(), end=b""), "ends before its closing boundary"),
        (form(file_part())[:-10], "ends before its closing boundary"),
        (b"", "ends before its closing boundary"),
        (CSV, "not well-formed"),
        (form((file_part()[0] + "\r\nX: " + "y" * 5000, CSV)), "not well-formed"),
        (form((file_part()[0] + "\r\nX: y" * 20, CSV)), "not well-formed"),
    ],
)
async def test_a_body_that_is_no_form_with_one_file_is_refused(
    caller: httpx.AsyncClient, runtime: Runtime, body: bytes, detail: str
) -> None:
    response = await caller.post(PATH, content=body, headers={"Content-Type": FORM})
    assert_problem(response, 422, "upload.malformed")
    assert detail in response.json()["detail"]
    await assert_nothing_left(runtime)


@pytest.mark.parametrize("media_type", ["multipart/form-data", f"{FORM}{'x' * 300}"])
async def test_a_form_without_a_usable_boundary_is_refused(
    caller: httpx.AsyncClient, media_type: str
) -> None:
    response = await caller.post(PATH, content=form(), headers={"Content-Type": media_type})
    assert_problem(response, 422, "upload.malformed")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json"},
        {},
        {"Content-Type": "text/csv", "Content-Encoding": "gzip"},
        [
            ("Content-Type", "text/csv"),
            ("Content-Encoding", "identity"),
            ("Content-Encoding", "gzip"),
        ],
    ],
)
async def test_other_media_types_are_refused(
    caller: httpx.AsyncClient, headers: dict[str, str] | list[tuple[str, str]]
) -> None:
    response = await caller.post(PATH, content=CSV, headers=headers)
    assert_problem(response, 415, "request.unsupported_media_type")


class Sender:
    """Counts how often the application asks for the body."""

    def __init__(self, *messages: Message) -> None:
        self.asked = 0
        self._messages = list(messages)

    async def __call__(self) -> Message:
        self.asked += 1
        if self._messages:
            return self._messages.pop(0)
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


async def call(
    app: FastAPI, sender: Callable[[], Any], headers: dict[str, str]
) -> tuple[int, bytes]:
    sent: list[Message] = []
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": [(key.lower().encode(), value.encode()) for key, value in headers.items()],
        "server": ("api.test", 80),
        "client": ("203.0.113.7", 40000),
        "state": {},
    }

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, sender, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


async def test_nobody_who_is_not_signed_in_has_a_byte_read(app: FastAPI) -> None:
    sender = Sender({"type": "http.request", "body": CSV, "more_body": True})
    status, _ = await call(app, sender, {"Content-Type": "text/csv", "Content-Length": "9"})
    assert (status, sender.asked) == (401, 0)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Content-Type": "text/csv", "Content-Length": "2000000"}, 413),
        ({"Content-Type": FORM, "Content-Length": "2000000"}, 413),
        ({"Content-Type": "image/png", "Content-Length": "10"}, 415),
        ({"Content-Type": "text/csv", "Content-Length": "600000"}, 409),
        ({"Content-Type": FORM, "Content-Length": "600000"}, 409),
    ],
)
async def test_what_is_announced_is_refused_unread(
    *,
    settings: Settings,
    person: Person,
    runtime: Runtime,
    sign_in: SignIn,
    headers: dict[str, str],
    expected: int,
) -> None:
    limits = {"max_upload_bytes": 1_000_000, "max_stored_bytes_per_tenant": 500_000}
    async with small_app(settings, limits) as app:
        sender = Sender({"type": "http.request", "body": CSV, "more_body": True})
        status, _ = await call(app, sender, headers | await sign_in(person))
    assert (status, sender.asked) == (expected, 0)
    await assert_nothing_left(runtime)


@asynccontextmanager
async def small_app(settings: Settings, limits: dict[str, Any]) -> AsyncIterator[FastAPI]:
    """An application with limits of its own, started."""
    storage = settings.storage.model_copy(update=limits)
    app = create_app(settings.model_copy(update={"storage": storage}))
    app.include_router(server_module().router)
    async with app.router.lifespan_context(app):
        yield app


@pytest.mark.parametrize(
    ("media_type", "body"),
    [("text/csv", bytes(1_000_001)), (FORM, form(file_part(bytes(1_000_001))))],
)
async def test_what_is_too_large_without_saying_so_is_ended_while_it_streams(
    *,
    settings: Settings,
    person: Person,
    runtime: Runtime,
    sign_in: SignIn,
    media_type: str,
    body: bytes,
) -> None:
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)] * 3
    sender = Sender(
        *({"type": "http.request", "body": piece, "more_body": True} for piece in pieces)
    )
    async with small_app(settings, {"max_upload_bytes": 1_000_000}) as app:
        headers = {"Content-Type": media_type} | await sign_in(person)
        status, _ = await call(app, sender, headers)
    assert status == 413
    assert sender.asked == 21
    await assert_nothing_left(runtime)


async def test_a_file_of_exactly_the_limit_passes_in_a_form(
    settings: Settings, person: Person, sign_in: SignIn
) -> None:
    async with (
        small_app(settings, {"max_upload_bytes": 1_000_000}) as app,
        connect(app, headers=await sign_in(person)) as client,
    ):
        response = await client.post(PATH, files={"file": ("a.csv", bytes(1_000_000))})
    assert response.json()["size_bytes"] == 1_000_000


async def test_a_sender_that_stalls_is_ended(
    settings: Settings, person: Person, runtime: Runtime, sign_in: SignIn
) -> None:
    sender = Sender({"type": "http.request", "body": CSV, "more_body": True})
    async with small_app(settings, {"chunk_timeout": timedelta(milliseconds=100)}) as app:
        headers = {"Content-Type": "text/csv"} | await sign_in(person)
        status, _ = await call(app, sender, headers)
    assert (status, sender.asked) == (408, 2)
    await assert_nothing_left(runtime)


@pytest.mark.parametrize("media_type", ["text/csv", FORM])
async def test_a_sender_that_leaves_leaves_nothing(
    *, app: FastAPI, person: Person, runtime: Runtime, sign_in: SignIn, media_type: str
) -> None:
    sender = Sender(
        {"type": "http.request", "body": form(file_part(), end=b""), "more_body": True},
        {"type": "http.disconnect"},
    )
    await call(app, sender, {"Content-Type": media_type} | await sign_in(person))
    await assert_nothing_left(runtime)


async def test_a_commit_that_fails_is_no_201_and_leaves_nothing(
    caller: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.system_transaction("test") as session:
        await session.execute(
            text("ALTER TABLE files ADD CONSTRAINT no CHECK (state <> 'stored') NOT VALID")
        )
    response = await caller.post(PATH, content=CSV, headers={"Content-Type": "text/csv"})
    assert response.status_code == 500
    await assert_nothing_left(runtime)


async def test_neither_content_nor_name_reaches_the_log(
    caller: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    for end in (b"--frontier--\r\n", b""):
        body = form(file_part(b"canary-cell", "canary-name.csv"), end=end)
        await caller.post(PATH, content=body, headers={"Content-Type": FORM})
    captured = capsys.readouterr()
    assert "canary" not in captured.out + captured.err
