"""The guide's application, run as the guide says, by `taskiq worker` as it comes."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from redis.asyncio import Redis

from jangada.testing import eventually
from jangada_queue.client import QueueClient
from jangada_queue.statistics import QueueStats, queue_stats

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "taskiq.md"
SECONDS = 60
ONE_AT_A_TIME = ("--workers", "1", "--max-async-tasks", "1")


@pytest.fixture
def application(tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The guide's `app.py`, known here as a client."""
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    path = tmp_path / "app.py"
    path.write_text(code)
    monkeypatch.setenv("BROKER_URL", valkey_url)
    spec = spec_from_file_location("app", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "app", module)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def worker(folder: Path, *arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskiq", "worker", "app:broker", *ONE_AT_A_TIME, *arguments),
        cwd=folder,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def stats(url: str) -> QueueStats:
    async with Redis.from_url(url) as redis:
        (found,) = await queue_stats(QueueClient(redis), ["taskiq"])
        return found


@pytest.mark.parametrize("arguments", [(), ("--receiver", "jangada_queue.taskiq:LeasedReceiver")])
async def test_the_guide_s_application_survives_a_kill(
    application: ModuleType, tmp_path: Path, valkey_url: str, arguments: tuple[str, ...]
) -> None:
    await application.broker.startup()
    async with worker(tmp_path, *arguments) as parent:
        first = await application.add.kiq(1, 2)
        assert (await first.wait_result(timeout=SECONDS)).return_value == 3

        async def killed() -> bool:
            """A kill between two tasks would end no lease: it is frozen before we look."""
            workers = (await stats(valkey_url)).workers
            if not workers:
                return False
            process = psutil.Process(workers[0].pid)
            process.suspend()
            is_running = (await stats(valkey_url)).claimed == 1
            (process.kill if is_running else process.resume)()
            return is_running

        more = [await application.add.kiq(number, 4) for number in range(8)]
        await eventually(killed)
        results = [await each.wait_result(timeout=SECONDS) for each in more]
        assert [each.return_value for each in results] == [number + 4 for number in range(8)]

        async def settled() -> bool:
            found = await stats(valkey_url)
            return (found.claimed, found.waiting, found.expired_total) == (0, 0, 1)

        await eventually(settled)
        parent.send_signal(signal.SIGTERM)
        assert await parent.wait() == 0
    assert (await stats(valkey_url)).workers == []
    await application.broker.shutdown()
