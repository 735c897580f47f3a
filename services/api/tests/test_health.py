"""The health matrix, with servers that are really stopped."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psutil
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import text

from jangada.config import DatabaseSettings, Settings, ValkeySettings
from jangada.db import Database
from jangada.db_errors import UnsafeRole
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey
from jangada.migrations import run
from jangada.testing import Person, eventually
from jangada_api.app import create_app, prepare
from jangada_api.health import APPLICATION_NAME, Check
from jangada_api.management import create_management
from jangada_api.testing import connect, open_session

pytestmark = pytest.mark.anyio


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    folder = tmp_path_factory.mktemp("pg")
    with EmbeddedPostgres(folder / "postgres", durable=False) as server:
        run.upgrade(DatabaseSettings(url=SecretStr(server.url)))
        yield server


@pytest.fixture
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("vk") / "valkey", durable=False) as server:
        yield server


def pointing_at(settings: Settings, **urls: str) -> Settings:
    sections: dict[str, Any] = {
        "database": lambda url: DatabaseSettings(url=SecretStr(url)),
        "valkey": lambda url: ValkeySettings(url=SecretStr(url)),
    }
    return settings.model_copy(update={name: sections[name](url) for name, url in urls.items()})


async def started(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


def management(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_management(app))
    return httpx.AsyncClient(transport=transport, base_url="http://management.test")


async def test_the_first_request_finds_what_it_would_wait_for(
    settings: Settings, database: Database
) -> None:
    async for app in started(settings):
        await prepare(app)
        async with database.direct() as connection:
            await connection.execute("DROP TABLE signing_keys")
        assert (await app.state.accounts.keyring.key_set())["keys"]


@pytest.mark.parametrize(
    "trouble",
    ["DROP TABLE signing_keys", "ALTER TABLE signing_keys RENAME COLUMN signs_from TO other"],
)
async def test_keys_that_cannot_be_read_fail_no_start(
    settings: Settings, database: Database, trouble: str
) -> None:
    async with database.direct() as connection:
        await connection.execute(trouble)
    async for app in started(settings):
        await prepare(app)
        async with management(app) as client:
            assert (await client.get("/health/live")).status_code == 200


async def test_ready_is_503_while_postgresql_is_stopped_and_live_stays_200(
    settings: Settings, own_postgres: EmbeddedPostgres
) -> None:
    async for app in started(pointing_at(settings, database=own_postgres.url)):
        async with management(app) as client:
            assert (await client.get("/health/ready")).json()["status"] == "ready"
            assert "\njangada_api_ready 1.0\n" in (await client.get("/metrics")).text
            own_postgres.stop()
            answer = await client.get("/health/ready")
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "health.not_ready"
            assert answer.json()["failed"] == ["postgresql"]
            assert (await client.get("/health/live")).status_code == 200
            assert (await client.get("/health/startup")).status_code == 200
            assert "\njangada_api_ready 0.0\n" in (await client.get("/metrics")).text
            own_postgres.start()
            assert (await client.get("/health/ready")).status_code == 200


async def test_the_api_starts_without_postgresql_and_is_ready_once_it_is_there(
    settings: Settings, own_postgres: EmbeddedPostgres
) -> None:
    own_postgres.stop()
    async for app in started(pointing_at(settings, database=own_postgres.url)):
        async with management(app) as client, connect(app) as caller:
            assert (await client.get("/health/ready")).status_code == 503
            assert (await caller.get("/v1/jobs")).status_code == 401
            own_postgres.start()
            assert (await client.get("/health/ready")).status_code == 200


async def asked_on(database: Database) -> int:
    """The backend of the connection that checks are made on."""
    async with database.system_transaction("test") as session:
        found = text(
            "SELECT pid FROM pg_stat_activity WHERE application_name = :name"
            " AND datname = current_database()"
        )
        return int((await session.execute(found, {"name": APPLICATION_NAME})).scalar_one())


async def test_a_connection_that_hangs_is_left_for_a_new_one(
    app: FastAPI, database: Database
) -> None:
    """As after a failover without a word: the old server answers nothing, the new one is well."""
    async with management(app) as client:
        assert (await client.get("/health/ready")).status_code == 200
        backend = psutil.Process(await asked_on(database))
        backend.suspend()
        try:

            async def is_ready() -> bool:
                return (await client.get("/health/ready")).status_code == 200

            await eventually(is_ready)
            assert backend.status() == psutil.STATUS_STOPPED
        finally:
            backend.resume()


async def test_without_valkey_it_is_ready_and_says_degraded(
    settings: Settings, own_valkey: EmbeddedValkey
) -> None:
    async for app in started(pointing_at(settings, valkey=own_valkey.url)):
        async with management(app) as client:
            assert (await client.get("/health/ready")).json()["degraded"] == []
            own_valkey.stop()
            answer = await client.get("/health/ready")
            assert answer.status_code == 200
            assert answer.json()["degraded"] == ["valkey"]
            own_valkey.start()
            assert (await client.get("/health/ready")).json()["degraded"] == []


async def test_a_valkey_that_takes_no_writes_is_degraded_too(
    settings: Settings, own_valkey: EmbeddedValkey
) -> None:
    async for app in started(pointing_at(settings, valkey=own_valkey.url)):
        async with management(app) as client, Redis.from_url(own_valkey.url) as redis:
            await redis.config_set("min-replicas-to-write", 1)
            answer = await client.get("/health/ready")
            assert (answer.status_code, answer.json()) == (
                200,
                {
                    "status": "ready",
                    "degraded": ["valkey"],
                    "reasons": {"valkey": "Valkey refuses commands for now (NOREPLICAS)."},
                },
            )
            await redis.config_set("min-replicas-to-write", 0)
            assert (await client.get("/health/ready")).json()["degraded"] == []


async def test_a_valkey_that_hangs_is_degraded_too(
    settings: Settings, own_valkey: EmbeddedValkey
) -> None:
    async for app in started(pointing_at(settings, valkey=own_valkey.url)):
        async with management(app) as client:
            process = psutil.Process(own_valkey.child.pid)
            process.send_signal(signal.SIGSTOP)
            try:
                answer = await client.get("/health/ready")
            finally:
                process.send_signal(signal.SIGCONT)
            assert answer.status_code == 200
            assert answer.json()["degraded"] == ["valkey"]


async def test_jobs_are_read_while_valkey_is_away(
    settings: Settings, own_valkey: EmbeddedValkey, person: Person
) -> None:
    async for app in started(pointing_at(settings, valkey=own_valkey.url)):
        own_valkey.stop()
        async with connect(app, headers=await open_session(app, person)) as caller:
            assert (await caller.get("/v1/jobs")).json()["data"] == []


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DROP TABLE alembic_version", "the schema is missing"),
        ("UPDATE alembic_version SET version_num = '0001'", "the schema is at 0001"),
        ("DELETE FROM alembic_version", "the schema is at None"),
    ],
)
async def test_without_the_schema_it_is_not_ready_and_says_what_to_do(
    app: FastAPI, database: Database, statement: str, reason: str
) -> None:
    async with database.system_transaction("test") as session:
        await session.execute(text(statement))
    async with management(app) as client:
        answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert reason in answer.json()["detail"]
    assert "jangada migrate" in answer.json()["detail"]


async def test_a_newer_schema_is_good_enough(app: FastAPI, database: Database) -> None:
    """During a rollback the older release serves on the newer schema."""
    async with database.system_transaction("test") as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    async with management(app) as client:
        assert (await client.get("/health/ready")).status_code == 200


async def test_a_role_that_bypasses_tenancy_is_refused_at_start(
    settings: Settings, own_postgres: EmbeddedPostgres
) -> None:
    app = create_app(pointing_at(settings, database=own_postgres.admin_url))
    with pytest.raises(UnsafeRole, match="superuser"):
        async with app.router.lifespan_context(app):
            pass


async def test_before_the_start_is_done_the_probes_say_so(settings: Settings) -> None:
    async with management(create_app(settings)) as client:
        for path in ("/health/startup", "/health/ready"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "health.starting")
        assert (await client.get("/health/live")).status_code == 200


async def test_while_it_shuts_down_it_is_not_ready(app: FastAPI) -> None:
    app.state.health.stopping.set()
    async with management(app) as client:
        answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["failed"] == ["process"]


async def test_the_management_port_has_metrics_and_problems(app: FastAPI) -> None:
    async with connect(app) as caller, management(app) as client:
        await caller.get("/v1/jobs")
        metrics = await client.get("/metrics")
        assert 'http_route="/v1/jobs"' in metrics.text
        assert "process_resident_memory_bytes" in metrics.text
        nowhere = await client.get("/nowhere")
        assert nowhere.json()["code"] == "route.not_found"
        assert nowhere.headers["x-content-type-options"] == "nosniff"
        assert (await client.post("/metrics")).status_code == 405


async def test_checks_that_hang_do_not_pile_up() -> None:
    asked = 0
    released = asyncio.Event()

    async def hang() -> None:
        nonlocal asked
        asked += 1
        await released.wait()

    check = Check(hang)
    found = await asyncio.gather(*(check.fault() for _ in range(20)))
    assert set(found) == {"no answer within 2 s"}
    assert asked == 1
    released.set()
    assert await check.fault() is None
    assert await check.fault() is None
    await check.close()
