"""A killed runner leaves no process behind, and what it left is cleaned up at the next start."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from jangada.local import launch
from jangada.local.errors import ServerFailed
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.process import end_processes_in, read_record, stop_recorded, wait_until
from jangada.local.valkey import EmbeddedValkey

RUNNER = Path(__file__).with_name("local_runner.py")

TIMEOUT = 30


@pytest.fixture(autouse=True)
def no_orphan_outlives_its_test(tmp_path: Path) -> Iterator[None]:
    yield
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(tmp_path) in argument for argument in process.cmdline()):
                process.kill()


@contextmanager
def running(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The embedded servers below another process, which has reported that they answer."""
    runner = subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, str(RUNNER), str(folder), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with runner:
        assert runner.stdout is not None
        yield runner, json.loads(runner.stdout.readline())


def family(pids: list[int]) -> list[psutil.Process]:
    parents = [psutil.Process(pid) for pid in pids]
    return parents + [child for parent in parents for child in parent.children(recursive=True)]


def all_gone(processes: list[psutil.Process], within: float = TIMEOUT) -> bool:
    """None runs any more; what only waits for init to take note of it counts as gone."""
    return wait_until(lambda: not any(is_alive(process) for process in processes), within)


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_servers_end_when_their_runner_is_killed(tmp_path: Path) -> None:
    with running(tmp_path) as (runner, report):
        servers = family(report["pids"])
        runner.kill()
        assert len(servers) > 2
        assert all_gone(servers)
    with running(tmp_path) as (_, report):
        assert report["starts"] == [2, 2]


def test_orphans_are_stopped_at_the_next_start(tmp_path: Path) -> None:
    with running(tmp_path, "--orphans") as (runner, report):
        runner.kill()
        runner.wait(TIMEOUT)
        orphans = family(report["pids"])
        assert len(orphans) > 2
    with running(tmp_path) as (_, report):
        assert all_gone(orphans, within=0)
        assert report["starts"] == [2, 2]
        servers = family(report["pids"])
    assert all_gone(servers)


def test_what_is_left_of_a_killed_postmaster_is_no_obstacle(tmp_path: Path) -> None:
    with running(tmp_path, "--orphans") as (runner, report):
        rest = family(report["pids"])
        runner.kill()
        runner.wait(TIMEOUT)
        rest[0].kill()
    with running(tmp_path) as (_, report):
        assert report["starts"] == [2, 2]
        assert all_gone(rest, within=0)


def test_a_runner_killed_during_the_first_start_is_no_obstacle(tmp_path: Path) -> None:
    """Killed as soon as initdb has begun; the next start makes the cluster."""
    folder = tmp_path / "postgres"
    runner = subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, str(RUNNER), str(tmp_path)], stdin=subprocess.PIPE
    )
    with runner:
        while not list(folder.glob("data.partial*/base")):
            assert runner.poll() is None
        runner.kill()
    assert not (folder / "data").exists()
    with running(tmp_path) as (_, report):
        assert report["starts"] == [1, 1]


KEEPS_WRITING = """
import os
from pathlib import Path
parent, number = os.getppid(), 0
print(flush=True)
while os.getppid() == parent:
    Path("base").mkdir(exist_ok=True)
    Path(f"base/{number}").touch()
    number = (number + 1) % 1000
"""


def test_a_server_that_still_writes_half_a_cluster_is_no_obstacle(tmp_path: Path) -> None:
    """initdb lets servers of its own do the work, and those outlive it."""
    draft = tmp_path / "postgres" / "data.partial"
    draft.mkdir(parents=True)
    draft.parent.chmod(0o700)
    orphan = subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", KEEPS_WRITING], cwd=draft, stdout=subprocess.PIPE
    )
    with orphan:
        try:
            assert orphan.stdout is not None
            orphan.stdout.readline()
            with running(tmp_path) as (_, report):
                assert report["starts"] == [1, 1]
            assert orphan.wait(TIMEOUT) == -signal.SIGKILL
        finally:
            orphan.kill()
    assert not list(draft.parent.glob("data.partial*"))


def test_a_process_that_got_the_recorded_id_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with bystander:
        record = tmp_path / "server.json"
        record.write_text(json.dumps({"pid": bystander.pid, "identity": "another boot:42"}))
        assert not stop_recorded(record, ((signal.SIGKILL, 10.0),))
        assert not record.exists()
        assert bystander.poll() is None


def test_a_stale_lock_file_of_postgresql_with_a_living_id_is_no_obstacle(tmp_path: Path) -> None:
    """PostgreSQL itself would take the process that has the id now for a running server."""
    with EmbeddedPostgres(tmp_path / "pg", durable=False) as server:
        pass
    (server.data / "postmaster.pid").write_text(
        f"{os.getppid()}\n{server.data}\n1\n5432\n\n\n\nready\n"
    )
    with server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_killed_process_of_postgresql_ends_it_and_it_is_started_again(tmp_path: Path) -> None:
    """Recovering by itself, it might hang for ever when it is stopped meanwhile."""
    with EmbeddedPostgres(tmp_path / "pg", durable=False) as server:
        url = server.url
        psutil.Process(server.child.pid).children()[0].kill()
        assert server.child.ended.result(TIMEOUT) != 0
        server.restart()
        assert server.url == url
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1, "identity": null}'])
def test_a_damaged_record_names_no_process(tmp_path: Path, text: str) -> None:
    record = tmp_path / "server.json"
    record.write_text(text)
    assert read_record(record) is None


def test_a_process_that_is_gone_has_no_identity() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert launch.identity(process.pid) is None
    assert launch.identity(os.getpid()) == launch.identity(os.getpid()) is not None


def test_what_works_in_a_folder_is_ended(tmp_path: Path) -> None:
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1); input()"
    with subprocess.Popen(  # noqa: S603 - the program above
        [sys.executable, "-uc", program],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end_processes_in(tmp_path, grace=0.01)
        assert process.wait(TIMEOUT) == -signal.SIGKILL


def test_a_stopped_server_is_started_again_by_hand(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / "valkey", durable=False)
    with pytest.raises(ServerFailed, match="not running"):
        _ = server.child
    with pytest.raises(ServerFailed, match="not been started"):
        _ = server.url
    for _ in range(2):
        server.start()
        server.stop()
