"""Supervised children: ready when they say so, started again when they die, gone when we stop."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from jangada.local import children
from jangada.local.children import (
    MARK,
    Backoff,
    Program,
    Supervised,
    end_marked,
    reason,
    run_to_end,
)
from jangada.local.errors import ServerFailed
from jangada.local.process import wait_until

pytestmark = pytest.mark.anyio

TIMEOUT = 30

HEALTHY = """
import http.server, json, os, sys

class Health(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Health.asked += 1
        self.send_response(200 if Health.asked > 2 else 503)
        self.end_headers()
    def log_message(self, *_):
        pass

port = int(os.environ.get("PORT", 0))
server = http.server.HTTPServer(("127.0.0.1", port), Health)
with os.fdopen(int(os.environ["JANGADA_READY_FD"]), "w") as ready:
    ready.write(json.dumps({"management_url": f"http://127.0.0.1:{server.server_port}"}))
print(json.dumps({"event": "serving", "level": "info", "port": server.server_port}), flush=True)
server.serve_forever()
"""


class Heard:
    """An output that remembers; a test waits for what it expects."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    def say(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - any JSON
        self.events.append({"event": event, **fields})
        self._changed.set()

    def close(self) -> None:
        pass

    async def until(self, event: str, times: int = 1) -> dict[str, Any]:
        async with asyncio.timeout(TIMEOUT):
            while len(found := [e for e in self.events if e["event"] == event]) < times:
                self._changed.clear()
                await self._changed.wait()
        return found[times - 1]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(
        name="child",
        argv=[sys.executable, "-c", HEALTHY],
        environ=os.environ,
        mark="a test",
        log=tmp_path / "child.log",
    )


def doing(program: Program, code: str) -> Program:
    return replace(program, argv=[sys.executable, "-uc", code])


@pytest.fixture
async def child(program: Program, heard: Heard) -> AsyncIterator[Supervised]:
    child = Supervised(program, heard)
    yield child
    await child.stop(asyncio.Event())


def pid(child: Supervised) -> int:
    assert child.child is not None
    return child.child.pid


async def test_a_child_is_ready_when_its_health_says_so(child: Supervised, heard: Heard) -> None:
    announced = await child.start()
    assert announced["management_url"].startswith("http://127.0.0.1:")
    assert [e["event"] for e in heard.events if e["event"] != "log"] == ["starting", "started"]
    record = (await heard.until("log"))["record"]
    assert record["event"] == "serving"


async def test_a_child_that_dies_is_started_again_where_it_was(
    child: Supervised, heard: Heard
) -> None:
    announced = await child.start()
    child.pin({"PORT": announced["management_url"].rpartition(":")[2]})
    first = pid(child)
    os.kill(first, signal.SIGKILL)
    exited = await heard.until("exited")
    assert (exited["reason"], exited["restart_in"]) == ("SIGKILL", 0.5)
    await heard.until("started", times=2)
    assert pid(child) != first
    ports = [e["record"]["port"] for e in heard.events if e["event"] == "log"]
    assert ports[0] == ports[1]


async def test_a_child_that_never_gets_ready_says_its_last_words(
    program: Program, heard: Heard
) -> None:
    child = Supervised(doing(program, "print('no such luck'); raise SystemExit(3)"), heard)
    with pytest.raises(ServerFailed, match=r"(?s)exit code 3.*no such luck"):
        await child.start()
    await child.stop(asyncio.Event())


async def test_a_program_that_cannot_be_started_is_said(program: Program, heard: Heard) -> None:
    child = Supervised(replace(program, argv=["/nonexistent"]), heard)
    with pytest.raises(ServerFailed, match="/nonexistent"):
        await child.start()
    await child.stop(asyncio.Event())


STUBBORN = """
import signal
signal.signal(signal.SIGTERM, lambda *_: print("not now"))
print("here")
while True:
    signal.pause()
"""


async def start_without_health(child: Supervised, heard: Heard) -> asyncio.Task[Any]:
    starting = asyncio.create_task(child.start())
    await heard.until("log")
    return starting


async def test_a_child_is_killed_after_its_time_of_grace(program: Program, heard: Heard) -> None:
    patient = replace(doing(program, STUBBORN), grace=timedelta(milliseconds=1))
    child = Supervised(patient, heard)
    starting = await start_without_health(child, heard)
    process = psutil.Process(pid(child))
    await child.stop(asyncio.Event())
    assert not process.is_running()
    with pytest.raises(asyncio.CancelledError):
        await starting


async def test_a_hurry_asks_again_and_does_not_wait_for_grace(
    program: Program, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "HURRIED_GRACE", timedelta(seconds=0.5))
    child = Supervised(replace(doing(program, STUBBORN), grace=timedelta(hours=1)), heard)
    starting = await start_without_health(child, heard)
    hurry = asyncio.Event()
    stopping = asyncio.create_task(child.stop(hurry))
    await heard.until("log", times=2)
    assert not stopping.done()
    hurry.set()
    await heard.until("log", times=3)
    await asyncio.wait_for(stopping, TIMEOUT)
    await asyncio.wait([starting])


FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(child.pid)
"""


async def test_what_a_child_leaves_behind_goes_with_it(program: Program, heard: Heard) -> None:
    await run_to_end(doing(program, FAMILY), heard)
    left = int((await heard.until("log"))["record"]["event"])
    assert wait_until(lambda: not is_alive(left), TIMEOUT)


def is_alive(process: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    return False


async def test_a_program_run_to_its_end_says_what_it_did(program: Program, heard: Heard) -> None:
    code = "import os; os.write(int(os.environ['JANGADA_READY_FD']), b'{\"done\": \"yes\"}\\n')"
    assert await run_to_end(doing(program, code), heard) == {"done": "yes"}


async def test_a_program_that_fails_says_its_last_words(program: Program, heard: Heard) -> None:
    with pytest.raises(ServerFailed, match="exit code 1"):
        await run_to_end(doing(program, "raise SystemExit('oh')"), heard)


async def test_a_quiet_program_is_heard_only_when_something_is_wrong(
    program: Program, heard: Heard
) -> None:
    code = 'print(\'{"level":"info","event":"a"}\\n{"level":"error","event":"b"}\\nc\')'
    await run_to_end(replace(doing(program, code), is_quiet=True), heard)
    said = [e["record"]["event"] for e in heard.events if e["event"] == "log"]
    assert said == ["b", "c"]
    assert len(program.log.read_text().splitlines()) == 3


async def test_a_line_without_an_end_is_cut(program: Program, heard: Heard) -> None:
    await run_to_end(doing(program, "print('x' * 1_000_000, end='')"), heard)
    lines = [e["record"]["event"] for e in heard.events if e["event"] == "log"]
    assert len(lines) > 1
    assert sum(map(len, lines)) == 1_000_000


async def test_orphans_are_known_by_their_mark(tmp_path: Path) -> None:
    orphan = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=-1, env={**os.environ, MARK: str(tmp_path)}
    )
    bystander = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=-1, env={**os.environ, MARK: str(tmp_path / "x")}
    )
    ending = asyncio.create_task(asyncio.to_thread(end_marked, str(tmp_path)))
    assert await asyncio.wait_for(orphan.wait(), TIMEOUT) == -signal.SIGKILL
    assert await ending == 1
    assert bystander.returncode is None
    await bystander.communicate(b"\n")


def test_pauses_double_up_to_a_limit_and_start_over_after_a_steady_life() -> None:
    backoff = Backoff()
    assert [backoff.after(0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.after(60) == 0.5


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (-15, "SIGTERM"), (-250, "signal 250")]
)
def test_an_end_is_told_in_words(code: int, words: str) -> None:
    assert reason(code) == words


async def test_the_child_finds_its_own_settings(program: Program, heard: Heard) -> None:
    code = f"import os; print(os.environ['{MARK}'])"
    await run_to_end(doing(program, code), heard)
    assert json.dumps(heard.events).count(program.mark) == 1


async def test_the_last_words_are_readable(program: Program, heard: Heard) -> None:
    record = {"event": "oh", "level": "error", "table": "jobs", "exception": "Trace\n  here"}
    code = f"print('''{json.dumps(record)}'''.replace(chr(10), '')); raise SystemExit(1)"
    with pytest.raises(ServerFailed) as failure:
        await run_to_end(doing(program, code.replace("\\n", "\\\\n")), heard)
    assert failure.value.detail.splitlines()[1:] == ["oh  table=jobs", "Trace", "  here"]


async def test_the_last_words_are_those_of_this_run(program: Program, heard: Heard) -> None:
    await run_to_end(doing(program, "print('all went well')"), heard)
    with pytest.raises(ServerFailed) as failure:
        await run_to_end(doing(program, "print('not now'); raise SystemExit(1)"), heard)
    assert "not now" in failure.value.detail
    assert "all went well" not in failure.value.detail
    assert "all went well" in program.log.with_name("child.log.old").read_text()
