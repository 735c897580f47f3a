"""`jangada api` as a process of its own."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from chaos.forkserver import ForkServer, Launch
from chaos.forkserver import start as really
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import text

import jangada_api.commands
from jangada.config import Settings
from jangada.db import Database, new_id
from jangada.local.process import Command
from jangada.testing import MASTER_KEY, eventually
from jangada_api.server import (
    PortInUse,
    Sockets,
    allow_files,
    announce,
    listen,
    open_sockets,
    url_of,
)

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

WAIT_SECONDS = 60


class Process:
    """An API process, started; `urls` is its ready line."""

    def __init__(
        self, launch: Launch, settings: Settings, folder: Path, *options: str, **variables: str
    ) -> None:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("JANGADA_")},
            "JANGADA_DATABASE__URL": settings.database.url.get_secret_value(),
            "JANGADA_VALKEY__URL": settings.valkey.url.get_secret_value(),
            "JANGADA_AUTH__MASTER_KEY": MASTER_KEY,
            "JANGADA_STORAGE__URL": settings.storage.url,
            "JANGADA_API__PORT": "0",
            "JANGADA_API__MANAGEMENT_PORT": "0",
            "JANGADA_TELEMETRY__LOG_FORMAT": "json",
            **variables,
        }
        environment = {key: value for key, value in environment.items() if value}
        read, write = os.pipe()
        command = Command(
            argv=[sys.executable, "-m", "jangada", "api", *options],
            environ=environment | {"JANGADA_READY_FD": str(write)},
            death_signal=signal.SIGKILL,
        )
        self.output = folder / "api.log"
        with self.output.open("wb") as output:
            self.child = launch(command, output.fileno(), [write])
        os.close(write)
        with os.fdopen(read) as ready:
            self.urls: dict[str, str] = json.loads(ready.readline() or "{}")

    @property
    def log(self) -> str:
        return self.output.read_text("utf-8")

    def ended(self) -> tuple[int, str]:
        """The exit code and what was logged, once it has ended."""
        return self.child.ended.result(WAIT_SECONDS), self.log

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.child.send(number)
        return self.ended()


type Start = Callable[..., Process]


@pytest.fixture
def start(forks: ForkServer, settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Starts the API, forked from a process that has imported it; see the module."""
    started: list[Process] = []

    def begin(*options: str, launch: Launch = forks.start, **variables: str) -> Process:
        started.append(Process(launch, settings, tmp_path, *options, **variables))
        return started[-1]

    yield begin
    for each in started:
        each.stop(signal.SIGKILL)


@pytest.fixture
def process(start: Start) -> Process:
    return start()


@asynccontextmanager
async def to(url: str, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=WAIT_SECONDS) as client:
        yield client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_both_ports_and_stops_cleanly(start: Start, number: signal.Signals) -> None:
    """Started as a person does, unlike those of other tests."""
    process = start(launch=really)
    async with to(process.urls["api_url"]) as client:
        response = await client.get("/v1/jobs")
        assert response.status_code == 401
        assert "server" not in response.headers
        assert (await client.get("/health/live")).status_code == 404
        assert (await client.get("/metrics")).status_code == 404
    async with to(process.urls["management_url"]) as client:
        assert (await client.get("/health/ready")).json()["status"] == "ready"
        assert (await client.get("/v1/jobs")).status_code == 404
    code, log = process.stop(number)
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert code == 0
    assert events == ["listening", "request", "request", "request", "shutting down", "stopped"]


async def sign_up(client: httpx.AsyncClient) -> None:
    """Register and sign in: the client is signed in afterwards."""
    person: dict[str, Any] = {"email": "ana@example.com", "password": "the tide goes out at six"}
    assert (
        await client.post("/v1/auth/register", json=person | {"name": "Ana"})
    ).status_code == 201
    tokens = (await client.post("/v1/auth/login", json=person)).json()
    client.headers["Authorization"] = f"Bearer {tokens['access_token']}"


class Collector(HTTPServer):
    """An OTLP/HTTP receiver."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receive)
        self.received: list[bytes] = []


class Receive(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        cast(Collector, self.server).received.append(body)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_a_request_is_one_span_without_data_in_the_caller_s_trace(
    start: Start, collector: Collector
) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    process = start(JANGADA_TELEMETRY__OTLP_ENDPOINT=endpoint)
    trace = "0af7651916cd43dd8448eb211c80319c"
    parent = f"00-{trace}-b7ad6b7169203331-01"
    async with to(process.urls["api_url"], traceparent=parent) as client:
        await client.get(f"/v1/jobs/{new_id()}", params={"q": "canary@example.org"})
    _, log = process.stop()
    bodies = b"".join(collector.received)
    spans = [
        span
        for body in collector.received
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    (line,) = [json.loads(line) for line in log.splitlines() if '"event":"request"' in line]
    assert [(span.name, span.trace_id.hex()) for span in spans] == [
        ("GET /v1/jobs/{job_id}", trace)
    ]
    assert (line["trace_id"], line["span_id"]) == (trace, spans[0].span_id.hex())
    assert b"canary" not in bodies
    assert "canary" not in log


async def insert_job(database: Database) -> str:
    async with database.system_transaction("test data") as session:
        job_id = await session.scalar(
            text(
                "INSERT INTO jobs (tenant_id, id, kind, queue, state, args, errors, max_attempts,"
                " scheduled_at, tags, metadata) SELECT id, gen_random_uuid(), 'test', 'default',"
                " 'available', '{}', '[]', 1, now(), '{}', '{}' FROM tenants RETURNING id"
            )
        )
    return str(job_id)


async def test_at_the_end_streams_are_closed_whole_and_the_port_is_not_ready(
    process: Process, database: Database
) -> None:
    async with to(process.urls["api_url"]) as client:
        await sign_up(client)
        path = f"/v1/jobs/{await insert_job(database)}/events"
        async with client.stream("GET", path) as response:
            lines = response.aiter_lines()
            assert await anext(lines) == "event: job"
            process.child.send(signal.SIGTERM)
            rest = [line async for line in lines]
            assert any(line.startswith("data: ") for line in rest)
    code, _ = process.stop()
    assert code == 0


async def test_a_second_signal_insists(process: Process) -> None:
    """The first waits for a connection that sends its body slowly; the second does not."""
    host, port = process.urls["api_url"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        process.child.send(signal.SIGTERM)
        await eventually(lambda: '"event":"shutting down"' in process.log)
        code, _ = process.stop()
    assert code == 0


@contextlib.contextmanager
def connection(url: str) -> Iterator[socket.socket]:
    host, port = url.split("//")[1].split(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_SECONDS) as connection:
        yield connection


def answered(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


async def test_both_ports_bound_their_connections(start: Start) -> None:
    process = start(JANGADA_API__MAX_CONNECTIONS="1")
    for url in process.urls.values():
        with connection(url) as first:
            first.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert first.recv(1000).startswith(b"HTTP/1.1 404 ")
            with connection(url) as second:
                assert answered(second).startswith(b"HTTP/1.1 503 ")
    code, _ = process.stop()
    assert code == 0


@pytest.mark.parametrize(
    "after",
    [
        b"",
        b"a",
        b"GET /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n",
    ],
)
async def test_who_is_refused_before_the_body_gets_one_answer(
    process: Process, after: bytes
) -> None:
    with connection(process.urls["api_url"]) as client:
        client.sendall(
            b"POST /v1/contacts/imports HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Content-Length: 54\r\nExpect: 100-continue\r\n\r\n"
        )
        head = client.recv(1000)
        client.sendall(after)
        answer = head + answered(client)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1


async def test_credentials_in_trailers_are_nobody_s(process: Process) -> None:
    async with to(process.urls["api_url"]) as signed_in:
        await sign_up(signed_in)
        token = signed_in.headers["Authorization"]
    with connection(process.urls["api_url"]) as client:
        client.sendall(
            b"POST /v1/contacts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'1b\r\n{"email":"ana@example.com"}\r\n0\r\n'
            b"Authorization: " + token.encode() + b"\r\n\r\n"
        )
        assert answered(client).startswith(b"HTTP/1.1 401 ")


async def test_as_many_files_may_be_open_as_connections_need() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        allow_files(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, before[1])
        allow_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_port_in_use_is_said_and_the_exit_code_is_1(start: Start) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        process = start("--port", str(port))
        code, log = process.ended()
    assert (code, process.urls) == (1, {})
    assert f"Cannot listen on 127.0.0.1:{port}" in log
    assert "Traceback" not in log


async def test_a_missing_key_is_named_and_the_exit_code_is_1(start: Start) -> None:
    code, log = start(JANGADA_AUTH__MASTER_KEY="").ended()
    assert code == 1
    assert "JANGADA_AUTH__MASTER_KEY" in log
    assert "Traceback" not in log


async def test_in_production_files_at_a_relative_path_are_refused(start: Start) -> None:
    process = start(JANGADA_STORAGE__URL="file://.jangada/files")
    code, log = process.ended()
    assert (code, process.urls) == (1, {})
    assert "JANGADA_STORAGE__URL: is a relative path" in log
    assert "file:///" in log
    assert "Traceback" not in log


async def started_at(url: str) -> str:
    async with to(url) as client:
        metrics = (await client.get("/metrics")).text
    return next(line for line in metrics.splitlines() if line.startswith("process_start_time"))


async def other_than(before: str, url: str) -> str:
    """When the process started that serves now, once it is another one."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            # A connection that the old process accepted in its last moment is closed unanswered.
            with contextlib.suppress(httpx.TransportError):
                if (now := await started_at(url)) != before:
                    return now


async def test_with_reload_a_change_of_the_code_starts_it_anew(start: Start) -> None:
    process = start("--reload", launch=really)
    before = await started_at(process.urls["management_url"])
    os.utime(jangada_api.commands.__file__)
    await other_than(before, process.urls["management_url"])
    async with to(process.urls["api_url"]) as client:
        assert (await client.get("/v1/jobs")).status_code == 401
    code, _ = process.stop()
    assert code == 0


async def test_an_address_that_is_not_ours_is_said(settings: Settings) -> None:
    with pytest.raises(PortInUse, match="Cannot listen on"):
        listen("203.0.113.1", 0)
    with pytest.raises(PortInUse, match="Cannot listen on"):
        listen("no such host", 0)


async def test_both_sockets_are_opened_or_none(settings: Settings) -> None:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with listen("127.0.0.1", 0) as taken:
        api = settings.api.model_copy(
            update={"port": port, "management_port": taken.getsockname()[1]}
        )
        with pytest.raises(PortInUse):
            open_sockets(settings.model_copy(update={"api": api}))
    listen("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")],  # noqa: S104 - tested
)
async def test_urls_can_be_used_on_this_machine(host: str, shown: str) -> None:
    with listen(host, 0) as listening:
        assert url_of(listening) == f"http://{shown}:{listening.getsockname()[1]}"


async def test_the_ready_line_goes_where_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = tmp_path / "ready"
    monkeypatch.setenv("JANGADA_READY_FD", str(os.open(line, os.O_WRONLY | os.O_CREAT)))
    with listen("127.0.0.1", 0) as public, listen("127.0.0.1", 0) as management:
        sockets = Sockets(public, management)
        announce(sockets)
        assert json.loads(line.read_text()) == sockets.urls()
