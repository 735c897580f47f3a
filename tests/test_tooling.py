"""The programs behind the Makefile, where a mistake would show on somebody else's machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import environment
import pytest
import settings_page
import suite
import toolchain
from toolchain import ROOT


@pytest.fixture(autouse=True)
def only_this_pip(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pip configuration of the machine, and none remembered."""
    for key in list(os.environ):
        if key.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    toolchain.uv_environment.cache_clear()
    yield
    toolchain.uv_environment.cache_clear()


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_uv_is_told_what_pip_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "90.0")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path} {tmp_path / 'absent'}")
    env = toolchain.uv_environment()
    assert env["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    assert env["UV_HTTP_TIMEOUT"] == "90"
    assert env["UV_FIND_LINKS"] == str(tmp_path)


def test_pip_is_read_from_its_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://index.example/\n", "utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert toolchain.uv_environment()["UV_DEFAULT_INDEX"] == "https://index.example/"


def test_what_uv_is_told_itself_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
    assert toolchain.uv_environment()["UV_DEFAULT_INDEX"] == "https://uv.example/simple"


def test_a_shim_that_fails_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With pyenv a `python3.13` may stand on the PATH and exit 127."""
    name = f"python{toolchain.wanted_python()}"
    executable(tmp_path / "shims" / name, "exit 127")
    executable(tmp_path / "old" / name, "echo 3.9 /usr/bin/python3.9")
    executable(tmp_path / "good" / name, f'exec "{sys.executable}" "$@"')
    folders = [str(tmp_path / each) for each in ("absent", "shims", "old", "good")]
    monkeypatch.setenv("PATH", os.pathsep.join(folders))
    assert toolchain.find_python() == sys._base_executable  # type: ignore[attr-defined] # private


def test_python_is_found_behind_pyenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version = toolchain.wanted_python()
    place = tmp_path / "versions" / f"{version}.1" / "bin" / f"python{version}"
    executable(place, f'exec "{sys.executable}" "$@"')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert toolchain.find_python() is not None


def test_without_one_none_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert toolchain.find_python() is None


def test_a_program_starts_with_a_python_that_works(tmp_path: Path) -> None:
    executable(tmp_path / "python3.13", "exit 127")
    executable(tmp_path / "python3", f'exec "{sys.executable}" "$@"')
    answer = subprocess.run(  # noqa: S603 - our own program
        [ROOT / "scripts/python", "-c", "import sys; print(sys.version_info >= (3, 11))"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "True\n"


def test_a_command_that_fails_is_tried_again(tmp_path: Path) -> None:
    """The second attempt finds what the first one left."""
    flaky = executable(tmp_path / "flaky", 'test -e "$1" && exit 0; touch "$1"; exit 1')
    toolchain.run([flaky, tmp_path / "mark"], {}, what="It")
    assert (tmp_path / "mark").exists()


def test_every_member_is_part_of_the_fingerprint() -> None:
    names = {path.as_posix() for path in environment.members()}
    assert {"packages/jangada", "packages/queue"} <= names
    assert {"services/api", "services/worker", "services/operator"} <= names
    assert environment.fingerprint().startswith(f"{ROOT}\n")


def test_locks_name_no_host_and_hash_everything() -> None:
    for lock in (ROOT / "locks").glob("*.txt"):
        lines = lock.read_text("utf-8").splitlines()
        pins = [number for number, line in enumerate(lines) if "==" in line.split("#")[0]]
        assert pins, lock.name
        assert [lines[at] for at in pins if "--hash=sha256:" not in lines[at + 1]] == []
        assert [line for line in lines if "://" in line or line.startswith("-")] == []


def test_services_ship_the_versions_that_are_tested() -> None:
    def pins(name: str) -> set[str]:
        lines = (ROOT / f"locks/{name}.txt").read_text("utf-8").splitlines()
        return {line.split()[0] for line in lines if "==" in line.split("#")[0]}

    assert pins("api") <= pins("dev")
    assert pins("worker") <= pins("dev")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (timedelta(days=7), "7d"),
        (timedelta(minutes=90), "90m"),
        (timedelta(seconds=30), "30s"),
        (timedelta(milliseconds=250), "250ms"),
    ],
)
def test_a_duration_is_shown_as_it_would_be_written(value: timedelta, written: str) -> None:
    assert settings_page.duration(value) == written


def test_the_gate_counts_branches_of_libraries_only() -> None:
    files = {
        "packages/a/x.py": {"num_branches": 10, "covered_branches": 9, "missing_branches": 1},
        "services/b/y.py": {"num_branches": 90, "covered_branches": 0, "missing_branches": 90},
    }
    assert suite.gate(files) == 0
    assert "  packages/a            90.0 %" in list(suite.report(files))
    files["packages/a/x.py"]["covered_branches"] = 8
    assert suite.gate(files) == 1


def test_a_control_plane_that_isn_t_built_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JANGADA_TOOLS", str(tmp_path))
    assert suite.prepare_cluster("built") == 0
    assert "NOT RUN" in capsys.readouterr().err
