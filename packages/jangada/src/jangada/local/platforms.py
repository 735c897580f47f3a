"""One local platform: its servers and programs, the order in which they start and stop.

Start: servers, schema, demo account, then dispatcher, worker and api together. Stop, one after the
other: api, worker (its jobs are drained), dispatcher, Valkey, PostgreSQL.
"""

import asyncio
import os
import sys
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from jangada.config import DatabaseSettings, Settings, StorageSettings, ValkeySettings
from jangada.local.children import Program, Supervised, end_marked, run_to_end
from jangada.local.data_folder import DEMO, DataFolder
from jangada.local.errors import DataUnusable, ServerFailed
from jangada.local.output import Output
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.servers import Kept
from jangada.local.valkey import EmbeddedValkey

MOST_WORKERS: Final = 64

MARGIN = timedelta(seconds=10)
"""How much longer than its own limit a child may take to stop."""

DEFAULTS: dict[str, object] = {
    "JANGADA_DATABASE__URL": DatabaseSettings().url,
    "JANGADA_VALKEY__URL": ValkeySettings().url,
    "JANGADA_STORAGE__URL": StorageSettings().url,
}


@dataclass(frozen=True)
class WorkerRange:
    """From how many to how many worker processes; `least` is None where their number is fixed."""

    least: int | None
    most: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`2`, or `0..4`. Raises `ValueError`."""
        least, dots, most = text.partition("..")
        try:
            found = cls(int(least), int(most)) if dots else cls(None, int(least))
        except ValueError as error:
            raise ValueError(f"{text!r} is neither a number nor a range: 2, or 0..4") from error
        if not max(found.least or 0, 1) <= found.most <= MOST_WORKERS or (found.least or 0) < 0:
            raise ValueError(f"{text!r}: from 0 up to at most {MOST_WORKERS}, the most at least 1")
        return found


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the person asked for."""

    data_dir: Path
    port: int
    management_port: int
    workers: WorkerRange
    fresh: bool


class Platform:
    """One platform in one folder, which is held by whoever runs it."""

    def __init__(
        self, options: Options, settings: Settings, folder: DataFolder, output: Output
    ) -> None:
        self._options = options
        self._settings = settings
        self._folder = folder
        self._output = output
        self._environ = dict(os.environ)
        self._servers: list[Kept] = []
        self._children: list[Supervised] = []

    async def start(self) -> None:
        """Return when everything is ready. Raises a `JangadaError`; `stop` is due in any case."""
        begun = time.monotonic()
        await asyncio.to_thread(self._clean_up)
        self._embed_servers()
        await _all(server.start() for server in self._servers)
        self._set_environment()
        await self._prepare()
        urls = await self._start_children()
        seconds = round(time.monotonic() - begun, 1)
        folder = self._folder
        demo = str(folder.path / DEMO) if (folder.path / DEMO).exists() else None
        self._output.say(
            "ready", **urls, data_dir=str(folder.path), demo_file=demo, seconds=seconds
        )

    async def stop(self, hurry: asyncio.Event) -> None:
        """Return when no process is left."""
        for child in reversed(self._children):
            await child.stop(hurry)
        for server in reversed(self._servers):
            await server.stop()

    @property
    def _postgres(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(
            self._folder.path / "postgres", max_connections=60 + 20 * self._options.workers.most
        )

    def _clean_up(self) -> None:
        """End what a killed run left behind; and start empty if that is wanted."""
        left = end_marked(self._folder.mark)
        if left:
            self._output.say("cleaned", what=f"{left} processes were still running")
        if self._options.fresh:
            self._postgres.clean_up()
            EmbeddedValkey(self._folder.path / "valkey").clean_up()
            self._folder.erase()

    def _embed_servers(self) -> None:
        """The servers, unless the environment names others."""
        if self._is_default("JANGADA_DATABASE__URL", self._settings.database.url):
            self._servers.append(Kept("postgres", self._postgres, self._output))
        if self._is_default("JANGADA_VALKEY__URL", self._settings.valkey.url):
            valkey = EmbeddedValkey(self._folder.path / "valkey")
            self._servers.append(Kept("valkey", valkey, self._output))

    def _is_default(self, key: str, value: object) -> bool:
        """Whether the environment leaves a setting open; spelling its default out does not."""
        default = DEFAULTS[key]
        return value == default and key not in self._environ and f"{key}_FILE" not in self._environ

    def _set_environment(self) -> None:
        """What the children are told; secrets travel this way only."""
        told = {server.setting: server.server.url for server in self._servers}
        if self._settings.auth.master_key is None:
            told["JANGADA_AUTH__MASTER_KEY"] = self._folder.master_key()
        if self._is_default("JANGADA_STORAGE__URL", self._settings.storage.url):
            told["JANGADA_STORAGE__URL"] = (self._folder.path / "files").as_uri()
        told["JANGADA_ENVIRONMENT"] = self._environ.get("JANGADA_ENVIRONMENT", "development")
        self._folder.write_environment(told)
        told |= {
            "JANGADA_API__PORT": str(self._options.port),
            "JANGADA_API__MANAGEMENT_PORT": str(self._options.management_port),
            "JANGADA_WORKER__MANAGEMENT_PORT": "0",
            **_worker_environment(self._options.workers),
            "JANGADA_TELEMETRY__LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }
        # A direct way to another database would be worse than none.
        unset = {f"{key}_FILE" for key in told}
        if "JANGADA_DATABASE__URL" in told:
            unset |= {"JANGADA_DATABASE__DIRECT_URL", "JANGADA_DATABASE__DIRECT_URL_FILE"}
            unset |= {"JANGADA_DATABASE__TRANSACTION_POOLING"}
        kept = {key: value for key, value in self._environ.items() if key not in unset}
        self._environ = kept | told

    def _program(
        self,
        name: str,
        *arguments: str,
        grace: timedelta = timedelta(0),
        is_quiet: bool = False,
    ) -> Program:
        """A module of ours, run by the same interpreter."""
        return Program(
            name=name,
            argv=[sys.executable, "-m", *arguments],
            environ=self._environ,
            mark=self._folder.mark,
            log=self._folder.log(name),
            grace=grace + MARGIN,
            is_quiet=is_quiet,
        )

    async def _prepare(self) -> None:
        """The schema; and the demo account in a database of our own."""
        is_ours = any(server.name == "postgres" for server in self._servers)
        demo = self._folder.new_demo() if is_ours else None
        arguments = [str(demo.path)] if demo else []
        module = "jangada.local.prepare"
        program = self._program("schema", module, *arguments, is_quiet=True)
        said = await run_to_end(program, self._output)
        if "error" in said:
            kind = ServerFailed if said.get("is_temporary") else DataUnusable
            raise kind(said["error"])
        if demo:
            demo.keep()
            self._output.say("demo", email=demo.email, password=demo.password, file=str(demo.path))

    async def _start_children(self) -> dict[str, str]:
        """Start all at once; where the api can be reached."""
        settings = self._settings
        dispatcher = self._program("dispatcher", "jangada", "dispatcher")
        worker = self._program("worker", "jangada", "worker", grace=settings.worker.drain_timeout)
        api = self._program("api", "jangada", "api", grace=settings.api.shutdown_timeout)
        self._children = [Supervised(p, self._output) for p in (dispatcher, worker, api)]
        *_, urls = await _all(child.start() for child in self._children)
        ports = {
            "JANGADA_API__PORT": urls["api_url"],
            "JANGADA_API__MANAGEMENT_PORT": urls["management_url"],
        }
        # Should it be started again, it is found where it was.
        self._children[-1].pin({key: str(urlsplit(url).port) for key, url in ports.items()})
        return {"api_url": urls["api_url"], "management_url": urls["management_url"]}


def _worker_environment(workers: WorkerRange) -> dict[str, str]:
    least = {} if workers.least is None else {"JANGADA_WORKER__MIN_PROCESSES": str(workers.least)}
    return {"JANGADA_WORKER__PROCESSES": str(workers.most), **least}


async def _all[T](works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do all at once. The first failure ends the others, and none is left under way."""
    tasks = [asyncio.create_task(work) for work in works]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return [task.result() for task in sorted(tasks, key=asyncio.Task.cancelled)]
