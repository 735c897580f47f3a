"""`jangada up` from the outside: started as a person starts it, killed as a machine kills it."""

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from jangada.local.postgres import EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

TIMEOUT = 90
"""Seconds to wait for what takes a few on an idle machine."""

ENDED = ["api", "worker", "dispatcher", "valkey", "postgres"]


class Up:
    """A running `jangada up --json`, and what it has said so far."""

    def __init__(self, folder: Path, *options: str, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        argv = [*prefix, sys.executable, "-m", "jangada", "up", "--json"]
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            [*argv, "--data-dir", str(folder), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._add(json.loads(line) if line[0] == "{" else {"event": "text", "line": line})
        self._add({"event": "end"})

    def _add(self, event: dict[str, Any]) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def until(self, event: str, times: int = 1, **fields: object) -> dict[str, Any]:
        """Wait for an event; its absence at the end of the program fails the test."""

        def found() -> list[dict[str, Any]]:
            wanted = {"event": event, **fields}
            return [e for e in self.events if wanted.items() <= e.items()]

        with self._changed:
            self._changed.wait_for(
                lambda: len(found()) >= times or self.has("end"), timeout=TIMEOUT
            )
            assert len(found()) >= times, self.events[-20:]
            return found()[times - 1]

    def logged(self, event: str) -> list[dict[str, Any]]:
        records = [e["record"] for e in self.events if e["event"] == "log"]
        return [record for record in records if record["event"] == event]

    def has(self, event: str) -> bool:
        return any(e["event"] == event for e in self.events)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        code = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        return code

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def ended(self) -> list[str]:
        return [e["process"] for e in self.events if e["event"] == "stopped"]


@contextmanager
def up(folder: Path, *options: str, prefix: Sequence[str] = ()) -> Iterator[Up]:
    """A platform that is gone at the end of the block, whatever happens in it."""
    running = Up(folder, *options, prefix=prefix)
    try:
        yield running
    finally:
        running.stop(signal.SIGTERM)
        assert left_behind(folder) == []


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that belong to the folder, by their arguments or environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            belongs = str(folder) in " ".join([*process.cmdline(), *process.environ().values()])
            if belongs and process.pid != os.getpid() and is_alive(process):
                found.append(" ".join(process.cmdline()))
    return found


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.05)


def sign_in(ready: dict[str, Any], folder: Path) -> httpx.Response:
    demo = json.loads((folder / "demo.json").read_text())
    credentials = {name: demo[name] for name in ("email", "password")}
    return httpx.post(f"{ready['api_url']}/v1/auth/login", json=credentials, timeout=TIMEOUT)


def start_import(ready: dict[str, Any], token: str) -> None:
    """Return when a worker has begun with the import."""
    rows = "".join(f"Ana {number},ana{number}@example.com\n" for number in range(20_000))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/csv"}
    with httpx.Client(base_url=ready["api_url"], headers=headers, timeout=TIMEOUT) as client:
        begun = client.post("/v1/contacts/imports", content=f"name,email\n{rows}")
        assert begun.status_code == 202
        job = begun.headers["location"]
        wait_for(lambda: client.get(job).json()["state"] != "available")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up") / "data"


@pytest.fixture(scope="module")
def platform(folder: Path) -> Iterator[Up]:
    with up(folder, "--port", "0", "--workers", "2") as running:
        running.until("ready")
        yield running


@pytest.fixture
def ready(platform: Up) -> dict[str, Any]:
    return platform.until("ready")


def test_it_is_ready_when_it_says_so(ready: dict[str, Any]) -> None:
    health = httpx.get(f"{ready['management_url']}/health/ready", timeout=TIMEOUT)
    assert health.status_code == 200
    assert health.json()["degraded"] == []
    assert httpx.get(f"{ready['api_url']}/openapi.json", timeout=TIMEOUT).status_code == 200


def test_the_demo_account_signs_in(platform: Up, ready: dict[str, Any], folder: Path) -> None:
    assert sign_in(ready, folder).status_code == 200
    shown = platform.until("demo")
    assert shown["password"] == json.loads((folder / "demo.json").read_text())["password"]


def test_the_folder_is_its_owners_alone(ready: dict[str, Any], folder: Path) -> None:
    modes = {stat.S_IMODE(path.lstat().st_mode) & 0o077 for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes == {0}


def test_no_secret_is_on_a_command_line(platform: Up, folder: Path) -> None:
    secrets = [path.read_text().strip() for path in folder.glob("**/*password")]
    secrets += [(folder / "master-key").read_text().strip()]
    secrets += [json.loads((folder / "demo.json").read_text())["password"]]
    lines = " ".join(" ".join(process.cmdline()) for process in platform.processes())
    assert len(secrets) == 5
    assert not any(secret in lines for secret in secrets)


def test_only_the_children_listen_and_only_on_loopback(platform: Up) -> None:
    listening = [
        (" ".join(process.cmdline()), connection.laddr.ip)
        for process in platform.processes()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address for _, address in listening} == {"127.0.0.1"}
    assert all("-m jangada" in line or "jangada_worker" in line for line, _ in listening)


@pytest.mark.parametrize("port", ["free", "same"])
def test_a_second_up_in_the_folder_is_refused(
    platform: Up, ready: dict[str, Any], folder: Path, port: str
) -> None:
    """The folder is what is in the way, also where the port is taken by the first one, too."""
    second = Up(folder, "--port", "0" if port == "free" else ready["api_url"].rpartition(":")[2])
    assert second.stop(signal.SIGCONT) == 1
    assert str(platform.process.pid) in second.until("error")["detail"]
    assert sign_in(ready, folder).status_code == 200


def test_a_port_in_use_is_said_before_anything_is_made(
    ready: dict[str, Any], tmp_path: Path
) -> None:
    port = ready["api_url"].rpartition(":")[2]
    second = Up(tmp_path / "data", "--port", port)
    assert second.stop(signal.SIGCONT) == 1
    assert f"Port {port}" in second.until("error")["detail"]
    assert not (tmp_path / "data").exists()


def test_the_environment_file_reaches_the_platform(ready: dict[str, Any], folder: Path) -> None:
    command = f". '{folder}/environment'; exec {sys.executable} -m jangada migrate --check"
    answer = subprocess.run(  # noqa: S603 - a constant program
        ["/bin/sh", "-ac", command], capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("name", ["api", "dispatcher", "worker"])
def test_a_child_that_is_killed_is_started_again(
    platform: Up, ready: dict[str, Any], folder: Path, name: str
) -> None:
    started = len([e for e in platform.events if e["event"] == "started" and e["process"] == name])
    child = next(p for p in platform.processes() if p.cmdline()[-1] == name)
    family = [child, *child.children(recursive=True)]
    child.kill()
    assert platform.until("exited", process=name)["reason"] == "SIGKILL"
    platform.until("started", started + 1, process=name)
    assert not any(is_alive(process) for process in family)
    assert sign_in(ready, folder).status_code == 200


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_server_that_is_killed_is_started_again(
    platform: Up, ready: dict[str, Any], folder: Path, name: str
) -> None:
    record = json.loads((folder / name / "server.json").read_text())
    psutil.Process(record["pid"]).kill()
    platform.until("exited", process=name)
    platform.until("started", 2, process=name)
    wait_for(lambda: sign_in(ready, folder).status_code == 200)


def test_everything_stops_in_order_and_nothing_is_left(tmp_path: Path) -> None:
    """The next start after a kill has the same data, and a running import is finished first."""
    folder = tmp_path / "data"
    with up(folder, "--port", "0") as first:
        ready = first.until("ready")
        tokens = sign_in(ready, folder).json()
        family = first.processes()
        first.process.kill()
        wait_for(lambda: not any(is_alive(process) for process in family))
    with up(folder, "--port", "0") as second:
        ready = second.until("ready")
        assert not second.has("demo")
        start_import(ready, tokens["access_token"])
        family = second.processes()
        assert second.stop(signal.SIGINT) == 0
        assert [record["outcome"] for record in second.logged("job ended")] == ["completed"]
        assert second.ended() == ENDED
        assert second.until("finished")["data_dir"] == str(folder)
        assert not any(is_alive(process) for process in family)
    with up(folder, "--port", "0", "--fresh") as third:
        third.until("demo")
        assert third.stop() == 130
        assert third.ended()[-2:] == ENDED[-2:]


def test_a_newer_database_is_refused_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    with EmbeddedPostgres(folder / "postgres") as server, psycopg.connect(server.url) as client:
        client.execute("CREATE TABLE alembic_version AS SELECT '9999' AS version_num")
    with up(folder, "--port", "0") as running:
        assert "9999" in running.until("error")["detail"]
        assert running.stop(signal.SIGCONT) == 1
    with EmbeddedPostgres(folder / "postgres") as server, psycopg.connect(server.url) as client:
        row = client.execute("SELECT version_num FROM alembic_version").fetchone()
    assert row == ("9999",)


def test_servers_of_ones_own_are_used_instead(
    database_url: str,
    valkey_server: EmbeddedValkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JANGADA_DATABASE__URL", database_url)
    monkeypatch.setenv("JANGADA_VALKEY__URL", valkey_server.url)
    folder = tmp_path / "data"
    with up(folder, "--port", "0") as running:
        ready = running.until("ready")
        health = httpx.get(f"{ready['management_url']}/health/ready", timeout=TIMEOUT)
        assert health.status_code == 200
        assert not running.has("demo")
        assert not (folder / "postgres").exists()
        assert not (folder / "valkey").exists()
        assert running.stop() == 0


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    running = Up(tmp_path / "file" / "data", "--port", "0")
    assert running.stop(signal.SIGCONT) == 1
    assert "Not a directory" in running.until("error")["detail"]


def ordinary_user() -> list[str]:
    """The beginning of a command line that makes root the account nobody, who may read all."""
    if os.geteuid() != 0:
        pytest.skip("not root: the other tests of this file ran as an ordinary user")
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv (util-linux) is missing: the ordinary user is NOT tested")
    account = pwd.getpwnam("nobody")
    reading = "+dac_read_search"
    fully = "--securebits=+no_setuid_fixup"  # access(2) reckons with it, too
    ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return [setpriv, *ids, f"--inh-caps={reading}", f"--ambient-caps={reading}", fully]


def test_an_ordinary_user_runs_it_too(tmp_path: Path) -> None:
    prefix = ordinary_user()
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, pwd.getpwnam("nobody").pw_uid, -1)
    with up(home / "data", "--port", "0", prefix=prefix) as running:
        ready = running.until("ready")
        assert sign_in(ready, home / "data").status_code == 200
        owners = {process.uids().effective for process in running.processes()}
        assert owners == {pwd.getpwnam("nobody").pw_uid}
        assert running.stop() == 0


def test_an_unwritable_folder_is_said(tmp_path: Path) -> None:
    prefix = ordinary_user() if os.geteuid() == 0 else []
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    running = Up(home / "data", "--port", "0", prefix=prefix)
    assert running.stop(signal.SIGCONT) == 1
    assert "Permission denied" in running.until("error")["detail"]


def test_a_port_that_another_program_has_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        running = Up(tmp_path / "data", "--port", "0", "--management-port", str(port))
        assert running.stop(signal.SIGCONT) == 1
    assert f"Port {port}" in running.until("error")["detail"]
