"""Jobs over HTTP while Valkey takes connections and says nothing."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from jangada.config import Settings, ValkeySettings
from jangada.db import Database
from jangada.testing import Person
from jangada_api.app import create_app
from jangada_api.testing import connect, open_session

pytestmark = pytest.mark.anyio


class SilentServer:
    """Takes connections and what is sent on them, and never answers; then it hangs up."""

    def __init__(self) -> None:
        self._asked = asyncio.Condition()
        self._writers: list[asyncio.StreamWriter] = []
        self.connections = 0
        self._is_gone = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        async with self._asked:
            self.connections += 1
            self._asked.notify_all()
        while not self._is_gone and await reader.read(65536):
            pass
        writer.close()

    async def asked_by(self, connections: int) -> None:
        async with asyncio.timeout(30), self._asked:
            await self._asked.wait_for(lambda: self.connections >= connections)

    def hang_up(self) -> None:
        self._is_gone = True
        for writer in self._writers:
            writer.close()


@dataclass(frozen=True)
class Silenced:
    """An API whose Valkey is silent and whose pool has one connection; somebody signed in."""

    valkey: SilentServer
    caller: httpx.AsyncClient


@pytest.fixture
async def silenced(settings: Settings, person: Person) -> AsyncIterator[Silenced]:
    valkey = SilentServer()
    async with await asyncio.start_server(valkey.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        never = timedelta(minutes=1)
        silent = settings.model_copy(
            update={
                "database": settings.database.model_copy(
                    update={"pool_size": 1, "pool_timeout": timedelta(seconds=5)}
                ),
                "valkey": ValkeySettings(
                    url=SecretStr(f"redis://127.0.0.1:{port}/0"),
                    connect_timeout=never,
                    command_timeout=never,
                ),
            }
        )
        app = create_app(silent)
        async with app.router.lifespan_context(app):
            async with connect(app, headers=await open_session(app, person)) as caller:
                yield Silenced(valkey, caller)
            valkey.hang_up()


async def running_import(caller: httpx.AsyncClient, database: Database) -> str:
    headers = {"Content-Type": "text/csv"}
    sent = await caller.post("/v1/contacts/imports", content=b"email\na@b.co\n", headers=headers)
    async with database.system_transaction("test") as session:
        await session.execute(text("UPDATE jobs SET state = 'running', attempt = 1"))
    return str(sent.json()["id"])


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/{id}", "/v1/contacts/imports/{id}"])
async def test_who_waits_for_a_silent_valkey_keeps_no_connection_from_others(
    silenced: Silenced, database: Database, path: str
) -> None:
    caller, valkey = silenced.caller, silenced.valkey
    path = path.format(id=await running_import(caller, database))
    before = valkey.connections
    readers = [asyncio.create_task(caller.get(path)) for _ in range(2)]
    await valkey.asked_by(before + 2)
    assert (await caller.get("/v1/contacts")).status_code == 200
    valkey.hang_up()
    assert [answer.status_code for answer in await asyncio.gather(*readers)] == [200, 200]


async def test_a_cancel_is_committed_before_a_silent_valkey_is_asked(
    silenced: Silenced, database: Database
) -> None:
    job_id = await running_import(silenced.caller, database)
    before = silenced.valkey.connections
    cancelling = asyncio.create_task(silenced.caller.post(f"/v1/jobs/{job_id}:cancel"))
    await silenced.valkey.asked_by(before + 1)
    async with database.system_transaction("test") as session:
        assert await session.scalar(text("SELECT cancel_requested_at FROM jobs")) is not None
    silenced.valkey.hang_up()
    answer = await cancelling
    assert (answer.status_code, answer.json()["state"]) == (200, "running")
