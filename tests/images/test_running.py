"""The images at work: read-only, unprivileged and without a shell."""

import json
import signal
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from containers import Container, Unpacked

from jangada.local.process import wait_until
from jangada.testing import MASTER_KEY

pytestmark = [pytest.mark.images, pytest.mark.root]

PATIENCE = 60
SETTINGS: Mapping[str, str] = {
    "JANGADA_AUTH__MASTER_KEY": MASTER_KEY,
    "JANGADA_STORAGE__URL": "file:///tmp/files",
    "JANGADA_API__PORT": "0",
    "JANGADA_API__MANAGEMENT_PORT": "0",
    "JANGADA_WORKER__MANAGEMENT_PORT": "0",
}
LOOK = """
import json, os, pathlib, tempfile
def denied(path):
    try: pathlib.Path(path, "new").write_text("x")
    except OSError as error: return error.strerror
places = ("/", "/opt/jangada", "/var/lib/jangada", "/etc", "/usr/share/sbom")
with tempfile.TemporaryFile() as file:
    wrote = file.write(b"x")
shell = os.path.exists("/bin/sh")
print(json.dumps([os.getuid(), os.getgid(), wrote, shell, [denied(place) for place in places]]))
"""

type Services = Callable[[str], Unpacked]


def events(container: Container) -> dict[str, Any]:
    """What it has said, each line by its event."""
    lines = (line for line in container.said().splitlines() if line.startswith("{"))
    return {line["event"]: line for line in map(json.loads, lines)}


def until_it_says(container: Container, event: str) -> dict[str, Any]:
    """Wait for a line of its log. Raises `TimeoutError`, also when it has ended."""
    ended = container.process.poll
    if not wait_until(lambda: event in events(container) or ended() is not None, PATIENCE):
        raise TimeoutError(container.said())
    if event not in events(container):
        raise TimeoutError(container.said())
    found: dict[str, Any] = events(container)[event]
    return found


def end_in_order(container: Container) -> None:
    container.kill(signal.SIGTERM)
    assert container.process.wait(PATIENCE) == 0, container.said()


@pytest.mark.parametrize("service", ["api", "worker", "operator"])
def test_it_says_its_version(unpacked: Services, service: str) -> None:
    done = unpacked(service).run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[1].count(".") == 2


@pytest.mark.parametrize("service", ["api", "worker", "operator"])
def test_it_may_write_nothing_but_temporary_files(unpacked: Services, service: str) -> None:
    done = unpacked(service).run("-c", LOOK, entrypoint="python")
    assert done.stderr == ""
    assert json.loads(done.stdout) == [10001, 10001, 1, False, ["Read-only file system"] * 5]


def test_the_api_lives_and_ends_in_order(unpacked: Services) -> None:
    with unpacked("api").started(environ=SETTINGS) as container:
        urls = until_it_says(container, "listening")
        assert httpx.get(f"{urls['management_url']}/health/live").json() == {"status": "alive"}
        end_in_order(container)


@pytest.mark.parametrize("program", ["worker", "dispatcher"])
def test_the_workers_programs_start_and_end_in_order(unpacked: Services, program: str) -> None:
    with unpacked("worker").started([program], SETTINGS) as container:
        until_it_says(container, f"{program} is ready")
        end_in_order(container)


def test_the_operator_says_where_no_cluster_is(unpacked: Services) -> None:
    done = unpacked("operator").run("run")
    assert done.returncode == 69, done.stdout + done.stderr


def test_the_operator_tells_what_it_needs(unpacked: Services) -> None:
    done = unpacked("operator").run("manifests")
    assert "CustomResourceDefinition" in done.stdout, done.stderr


@pytest.mark.parametrize("service", ["api", "worker"])
def test_it_migrates_a_database(unpacked: Services, reachable_database: str, service: str) -> None:
    database = {"JANGADA_DATABASE__URL": reachable_database}
    done = unpacked(service).run("migrate", **database)
    assert done.returncode == 0, done.stdout + done.stderr
    assert unpacked(service).run("migrate", "--check", **database).returncode == 0


def test_the_api_is_ready_on_a_migrated_database(
    unpacked: Services, reachable_database: str
) -> None:
    settings = {**SETTINGS, "JANGADA_DATABASE__URL": reachable_database}
    with unpacked("api").started(environ=settings) as container:
        urls = until_it_says(container, "listening")
        answer = httpx.get(f"{urls['management_url']}/health/ready")
        assert (answer.status_code, answer.json()["degraded"]) == (200, ["valkey"])
        end_in_order(container)
