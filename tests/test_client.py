"""`jangada login`, `logout` and `contacts import` as a person uses them, against `jangada up`."""

import csv
import io
import json
import os
import pty
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from chaos.forkserver import ForkServer

from jangada.client.auth import SessionAuth, connect, sign_in
from jangada.client.errors import NotSignedIn
from jangada.client.sessions import SessionStore
from jangada.db import new_id
from jangada.local.process import Command

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PASSWORD = "the tide goes out at six"
GOOD = "name,email\nAna,ana@example.com\nRui,rui@example.com\n"
MIXED = "name,email\nAna,ana@example.com\nRui,rui at example.com\nEva,eva@example.com\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running platform."""
    folder = tmp_path_factory.mktemp("up")
    up = subprocess.Popen(  # noqa: S603 - our own program
        [
            sys.executable,
            "-m",
            "jangada",
            "up",
            "--json",
            "--port",
            "0",
            "--data-dir",
            folder / "d",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert up.stdout is not None
    with up.stdout as lines:
        events = (json.loads(line) for line in lines)
        yield next(event["api_url"] for event in events if event["event"] == "ready")
        up.terminate()
        for _ in events:
            pass  # until its end
    assert up.wait(90) == 0


@dataclass(frozen=True)
class Person:
    """Somebody with an account and a configuration folder of their own."""

    server: str
    email: str
    folder: Path
    forks: ForkServer

    @property
    def store(self) -> SessionStore:
        return SessionStore(self.folder / "jangada" / "sessions")

    def run(
        self, *arguments: str | Path, stdin: str = "", code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = Command(
            argv=[sys.executable, "-m", "jangada", *map(str, arguments)],
            environ={
                **os.environ,
                "XDG_CONFIG_HOME": str(self.folder),
                "COLUMNS": "100",
                **environment,
            },
        )
        done = self.forks.run(command, stdin)
        assert done.returncode == code, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        return done

    def file(self, content: str, name: str = "contacts.csv") -> Path:
        path = self.folder / name
        path.write_text(content, encoding="utf-8")
        return path

    def imported(self, *arguments: str | Path, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - as `run`
        done = self.run("contacts", "import", *arguments, "--json", **more)
        job: dict[str, Any] = json.loads(done.stdout)
        return job


@pytest.fixture
def person(server: str, tmp_path: Path, forks: ForkServer) -> Person:
    email = f"ana-{new_id().hex[-12:]}@example.com"
    account = {"email": email, "name": "Ana Lima", "password": PASSWORD}
    httpx.post(f"{server}/v1/auth/register", json=account, timeout=30).raise_for_status()
    return Person(server, email, tmp_path, forks)


@pytest.fixture
def ana(person: Person) -> Person:
    """Signed in."""
    sign_in(person.store, person.server, person.email, PASSWORD)
    return person


def statistics(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    lines = (line.rsplit(maxsplit=1) for line in done.stdout.splitlines() if line.strip())
    return {name.strip(): count for name, count in lines}


def test_an_import_prints_its_statistics(ana: Person) -> None:
    done = ana.run("contacts", "import", ana.file(MIXED))
    assert statistics(done) | {"seconds": ""} == {
        "rows": "3",
        "inserted": "2",
        "updated": "0",
        "unchanged": "0",
        "skipped": "0",
        "duplicates": "0",
        "rejected": "1",
        "invalid_email": "1",
        "seconds": "",
    }


def test_rejected_rows_are_an_error_under_strict_only(ana: Person) -> None:
    assert ana.imported(ana.file(MIXED))["result"]["rejected"] == 1
    assert ana.imported(ana.file(MIXED), "--strict", code=1)["result"]["rejected"] == 1
    assert ana.imported(ana.file(GOOD), "--strict")["result"]["rejected"] == 0


def test_rejected_rows_are_saved_corrected_and_imported(ana: Person) -> None:
    rejects = ana.folder / "rejects.csv"
    ana.run("contacts", "import", ana.file(MIXED), "--rejects", rejects)
    rows = list(csv.DictReader(rejects.read_text("utf-8-sig").splitlines()))
    assert [(row["_line"], row["_reason"]) for row in rows] == [("3", "invalid_email")]

    corrected = ana.file(rejects.read_text("utf-8").replace(" at ", "@"), "corrected.csv")
    again = ana.folder / "again.csv"
    result = ana.imported(corrected, "--rejects", again)["result"]
    assert (result["inserted"], result["rejected"]) == (1, 0)
    assert not again.exists(), "there is nothing to save"


def test_the_options_reach_the_import(ana: Person) -> None:
    odd = "Wer|Wo\nAna|ana@example.com\nJosé|jose@example.com\n"
    path = ana.folder / "odd.txt"
    path.write_bytes(odd.encode("cp1252"))
    options = ["--delimiter", "|", "--encoding", "windows-1252"]
    mapping = ["--mapping", json.dumps({"Wer": "name", "Wo": "email"})]
    result = ana.imported(path, *options, *mapping, "--validate-only")["result"]
    assert result["rows"] == 2
    assert ana.imported(path, *options, *mapping)["result"]["inserted"] == 2
    changed = ana.file("name,email\nAnna,ana@example.com\n")
    assert ana.imported(changed, "--on-conflict", "skip")["result"]["skipped"] == 1


def test_a_file_comes_from_standard_input_too(ana: Person) -> None:
    assert ana.imported("-", stdin=GOOD)["result"]["inserted"] == 2


def test_a_file_that_is_absent_is_named(ana: Person) -> None:
    for path in (ana.folder / "absent.csv", ana.folder):
        assert f"{path.name} cannot be read" in ana.run("contacts", "import", path, code=1).stderr


def read_to_end(screen: io.FileIO) -> bytes:
    """All that is drawn, until nobody draws any more: a terminal nobody reads stops who writes."""
    drawn = bytearray()
    with suppress(OSError):  # EIO: the other end is closed
        while block := screen.read(4096):
            drawn += block
    return bytes(drawn)


def test_progress_is_drawn_on_a_terminal(ana: Person) -> None:
    """And only there: the statistics stay alone on standard output."""
    screen, terminal = pty.openpty()
    with ThreadPoolExecutor(1) as threads, os.fdopen(screen, "rb", buffering=0) as shown:
        drawing = threads.submit(read_to_end, shown)
        with os.fdopen(terminal, "wb") as stderr:
            done = subprocess.run(  # noqa: S603 - our own program
                [sys.executable, "-m", "jangada", "contacts", "import", str(ana.file(GOOD))],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | {"XDG_CONFIG_HOME": str(ana.folder), "TERM": "xterm"},
                timeout=90,
                check=True,
            )
        drawn = drawing.result(90)
    assert b"Sending" in drawn
    assert b"Sending" not in done.stdout
    assert b"inserted" in done.stdout


def test_an_import_that_fails_says_why_and_imports_nothing(ana: Person) -> None:
    done = ana.run("contacts", "import", ana.file('name,email\nAna,"ana@example.com\n'), code=1)
    assert done.stdout == ""
    assert "nothing of the file was imported" in done.stderr
    assert "import_file.unbalanced_quote" in done.stderr


def test_what_the_server_refuses_is_told_in_its_words(ana: Person) -> None:
    done = ana.run("contacts", "import", ana.file(GOOD), "--delimiter", "x", code=1)
    assert "import_file.unknown_delimiter" in done.stderr
    assert "request" in done.stderr


def test_a_mapping_that_is_no_object_is_found_before_anything_is_sent(person: Person) -> None:
    done = person.run("contacts", "import", person.file(GOOD), "--mapping", "[1]", code=2)
    assert "JSON object" in done.stderr


def test_a_token_in_the_environment_needs_no_session(person: Person) -> None:
    credentials = {"email": person.email, "password": PASSWORD}
    tokens = httpx.post(f"{person.server}/v1/auth/login", json=credentials, timeout=30).json()
    options = ["--server", person.server]
    done = person.imported(person.file(GOOD), *options, JANGADA_TOKEN=tokens["access_token"])
    assert done["result"]["inserted"] == 2
    bad = person.run("contacts", "import", person.file(GOOD), *options, code=1, JANGADA_TOKEN="x")
    assert "auth.token_invalid" in bad.stderr


def test_without_a_session_the_way_to_one_is_shown(person: Person) -> None:
    file = person.file(GOOD)
    assert "jangada login URL" in person.run("contacts", "import", file, code=1).stderr
    options = ["--server", person.server]
    stderr = person.run("contacts", "import", file, *options, code=1).stderr
    assert f"jangada login {person.server}" in stderr.replace("\n", " ")


def test_login_keeps_a_session_for_the_commands_after_it(person: Person) -> None:
    done = person.run("login", person.server, stdin=f"{person.email}\n{PASSWORD}\n")
    assert f"Signed in to {person.server} as {person.email}." in done.stderr
    kept = [path for path in person.folder.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert not any(PASSWORD in path.read_text() for path in kept)
    person.imported(person.file(GOOD))


def test_a_wrong_password_keeps_no_session(person: Person) -> None:
    done = person.run("login", person.server, "--email", person.email, stdin="wrong\n", code=1)
    assert "auth.sign_in_failed" in done.stderr
    assert person.store.find(person.server) is None


def test_a_server_that_is_away_may_be_tried_again_later(person: Person) -> None:
    done = person.run("login", "127.0.0.1:1", "--email", "a@example.com", stdin="x\n", code=69)
    assert "cannot be reached" in done.stderr


def test_logout_ends_the_session_here_and_there(ana: Person) -> None:
    session = ana.store.find(ana.server)
    assert session is not None
    ana.run("logout")
    assert ana.store.find(ana.server) is None
    headers = {"Authorization": f"Bearer {session.access_token}"}
    deadline = time.monotonic() + 30
    while httpx.get(f"{ana.server}/v1/me", headers=headers, timeout=30).status_code != 401:
        assert time.monotonic() < deadline
    ana.run("logout", ana.server, code=1)


def test_an_expired_token_is_refreshed_by_the_next_command(ana: Person) -> None:
    before = ana.store.find(ana.server)
    assert before is not None
    ana.store.save(replace(before, expires_at=0))
    ana.imported(ana.file(GOOD))
    after = ana.store.find(ana.server)
    assert after is not None
    assert after.refresh_token != before.refresh_token
    assert after.is_fresh()


def test_commands_at_once_share_one_refresh(ana: Person) -> None:
    """Each has its own view of the expired session; one refreshes, the others use what it got."""
    before = ana.store.find(ana.server)
    assert before is not None
    ana.store.save(replace(before, expires_at=0))

    def ask(_: int) -> str:
        with connect(ana.store, ana.server, None) as http:
            response = http.get("/v1/me")
            assert response.status_code == 200
            return str(response.request.headers["Authorization"])

    with ThreadPoolExecutor(10) as threads:
        assert len(set(threads.map(ask, range(10)))) == 1
    assert ask(0)


def test_a_token_that_is_refused_is_refreshed_once(ana: Person) -> None:
    """As after a change of the server's keys: nothing tells beforehand."""
    kept = ana.store.find(ana.server)
    assert kept is not None
    ana.store.save(replace(kept, access_token="no token of this server"))
    with connect(ana.store, ana.server, None) as http:
        assert http.get("/v1/me").status_code == 200


def test_a_session_that_was_ended_elsewhere_is_forgotten(ana: Person) -> None:
    kept = ana.store.find(ana.server)
    assert kept is not None
    grant = {"refresh_token": kept.refresh_token}
    httpx.post(f"{ana.server}/v1/auth/logout", json=grant, timeout=30).raise_for_status()
    ana.store.save(replace(kept, expires_at=0))
    with (
        httpx.Client(
            base_url=ana.server, auth=SessionAuth(ana.store, ana.server), timeout=30
        ) as http,
        pytest.raises(NotSignedIn, match="has ended"),
    ):
        http.get("/v1/me")
    assert ana.store.find(ana.server) is None


def test_a_server_that_works_is_told_thing_by_thing(person: Person) -> None:
    """The account that it makes is gone: its job was the last that anybody sees of it."""
    done = person.run("check", person.server)
    assert [line.partition(" (")[0] for line in done.stdout.splitlines()] == [
        "ok: the API answers",
        "ok: an account is made",
        "ok: it signs in",
        "ok: a job runs to its end",
        "ok: the account is erased",
    ]


def test_a_server_that_is_not_there_fails_the_check(person: Person) -> None:
    done = person.run("check", "http://127.0.0.1:9", code=1)
    assert "this fails: the API answers. http://127.0.0.1:9 cannot be reached" in done.stderr
    assert "docs/runbooks/api-fails.md" in done.stderr
