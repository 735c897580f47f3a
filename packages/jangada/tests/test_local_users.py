"""The embedded servers run as root and as an ordinary user, and nothing outside the folder changes.

Run by root, these tests also play the ordinary user, who may then read below root's folders (the
interpreter may lie there) and is ordinary in all else.
"""

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jangada.local.binaries import postgres_program
from jangada.local.credentials import candidates, choose
from jangada.local.errors import FolderUnusable, PrivilegesUnsuitable
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.process import OWN, Command, plain_environ, run

RUNNER = Path(__file__).with_name("local_runner.py")

IS_ROOT = os.geteuid() == 0

as_root = pytest.mark.skipif(not IS_ROOT, reason="needs root: other users are played by it")


def report_of(argv: list[str]) -> dict[str, Any]:
    """What the runner reports when this command line runs it to its end."""
    answer = subprocess.run(  # noqa: S603 - our own script
        argv, input="", capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    report: dict[str, Any] = json.loads(answer.stdout)
    return report


def as_ordinary_user(argv: list[str]) -> list[str]:
    """The command line that runs another one as the account nobody."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv (util-linux) is missing: the ordinary user is NOT tested")
    reading = "+dac_read_search"
    fully = "--securebits=+no_setuid_fixup"  # access(2) reckons with it, too
    options = [f"--reuid={nobody().pw_uid}", f"--regid={nobody().pw_gid}", "--clear-groups"]
    return [setpriv, *options, f"--inh-caps={reading}", f"--ambient-caps={reading}", fully, *argv]


def nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def modes_above(folder: Path) -> list[tuple[Path, int, int]]:
    found = [(path, path.stat()) for path in folder.parents]
    return [(path, stat.S_IMODE(state.st_mode), state.st_uid) for path, state in found]


def test_servers_run_as_whoever_runs_these_tests(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    before = modes_above(folder), Path("/etc/passwd").read_bytes()
    report = report_of([sys.executable, str(RUNNER), str(folder)])
    assert report["uid"] == os.geteuid()
    assert report["starts"] == [1, 1]
    assert before == (modes_above(folder), Path("/etc/passwd").read_bytes())


@as_root
def test_servers_run_as_an_ordinary_user(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    os.chown(folder, nobody().pw_uid, nobody().pw_gid)
    report = report_of(as_ordinary_user([sys.executable, str(RUNNER), str(folder)]))
    assert report["uid"] == nobody().pw_uid
    assert report["starts"] == [1, 1]
    assert {path.stat().st_uid for path in folder.rglob("*")} == {nobody().pw_uid}


@pytest.fixture
def namespaces(tmp_path: Path) -> None:
    """In a container or a chroot there may be none."""
    if choose(postgres_program("initdb"), tmp_path).kind != "namespace":
        pytest.skip("user namespaces are forbidden here: the way with them is NOT tested")


@as_root
@pytest.mark.usefixtures("namespaces")
def test_below_root_postgresql_has_none_of_its_powers(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg", durable=False) as server:
        status = Path(f"/proc/{server.child.pid}/status").read_text()
        owners = {path.lstat().st_uid for path in server.data.rglob("*")}
    capabilities = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(capabilities["CapEff"], 16) == 0
    assert owners == {0}


FORBID_NAMESPACES = """
import os, pathlib, subprocess, sys
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(ready[0], 1)
    for name in ("uid_map", "gid_map"):
        pathlib.Path(f"/proc/{child}/{name}").write_text("0 0 65536")
    os.write(go[1], b"!")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.unshare(os.CLONE_NEWUSER)
os.write(ready[1], b"!")
os.read(go[0], 1)
pathlib.Path("/proc/sys/user/max_user_namespaces").write_text("0")
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command as root where user namespaces are forbidden, as in most containers."""


@as_root
@pytest.mark.usefixtures("namespaces")
def test_without_namespaces_postgresql_runs_as_another_account(tmp_path: Path) -> None:
    """Nothing but the cluster changes its owner, and it changes back when namespaces are there."""
    runner = [sys.executable, str(RUNNER), str(tmp_path)]
    forbidden = [sys.executable, "-c", FORBID_NAMESPACES, *runner]
    assert report_of(forbidden)["starts"] == [1, 1]
    account = next(c for c in candidates() if c.kind == "account")
    owned = {path for path in tmp_path.rglob("*") if path.lstat().st_uid == account.uid}
    data = tmp_path / "postgres" / "data"
    assert owned == {data, *data.rglob("*")}
    assert report_of(runner)["starts"] == [2, 2]
    assert {path.lstat().st_uid for path in tmp_path.rglob("*")} == {0}
    assert report_of(forbidden)["starts"] == [3, 3]


@as_root
def test_as_another_account_it_reaches_what_lies_below_a_private_folder(tmp_path: Path) -> None:
    """So root may keep a checkout in its home folder; PostgreSQL asks as Python does."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "program").touch(mode=0o700)
    command = Command(
        argv=[sys.executable, "-c", ASK, str(private / "program")],
        environ=plain_environ(),
        folder=private,
        credentials=next(c for c in candidates() if c.kind == "account"),
    )
    run(command)
    assert (private / "answer").read_text() == "True"


ASK = """
import os, pathlib, sys
pathlib.Path("answer").write_text(str(os.access(sys.argv[1], os.X_OK)))
"""


@as_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    os.chown(folder, nobody().pw_uid, nobody().pw_gid)
    with pytest.raises(FolderUnusable, match="belongs to another user"):
        EmbeddedPostgres(folder).start()
    assert not any(folder.iterdir())


@as_root
def test_when_nothing_works_every_attempt_is_named(tmp_path: Path) -> None:
    failing = tmp_path / "fails"
    failing.write_text("#!/bin/sh\necho cannot >&2; exit 1\n")
    failing.chmod(0o700)
    with pytest.raises(
        PrivilegesUnsuitable, match=r"(?s)ordinary user.*namespace: .*\naccount: .*cannot"
    ):
        choose(failing, tmp_path)


CHOOSE = """
import pathlib, sys
from jangada.local.credentials import choose
from jangada.local.errors import PrivilegesUnsuitable
try:
    choose(pathlib.Path(sys.argv[1]), pathlib.Path("/"))
except PrivilegesUnsuitable as error:
    print(error)
"""


@as_root
def test_an_ordinary_user_is_told_nothing_of_root() -> None:
    argv = as_ordinary_user([sys.executable, "-c", CHOOSE, "/bin/false"])
    answer = subprocess.run(  # noqa: S603 - our own script
        argv, capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.startswith("PostgreSQL's programs cannot be used by this user.")
    assert "own: false failed" in answer.stdout


def test_an_ordinary_user_runs_servers_directly() -> None:
    if IS_ROOT:
        kinds = [candidate.kind for candidate in candidates()]
        assert kinds == ["namespace", "account"]
    else:
        assert list(candidates()) == [OWN]
