"""Tools are built once, whole, and with a plain word about what is missing."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tools
from tools import CONTROL, SETS, ToolsError, ToolSet

GO = """#!/bin/sh
echo built >> "{folder}/builds"
{body}
"""
WRITES = """
while [ "$1" != -o ]; do shift; done
shift; out=$1; shift
for package in "$@"; do echo "example.com/$package"; echo program > "$out$(basename $package)"; done
"""


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ToolSet:
    """A set of one program, with a cache of its own."""
    folder = tmp_path / "tools" / "own"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text(
        "module own\n\nrequire (\n\texample.com/one v1.2.3 // indirect\n)\n"
    )
    (folder / "go.sum").write_text("")
    monkeypatch.setattr(tools, "FOLDER", tmp_path / "tools")
    monkeypatch.setenv("JANGADA_TOOLS", str(tmp_path / "cache"))
    version = {"example.com/one.Version": ("example.com/one", "v{version}")}
    return ToolSet("own", {"first": "example.com/one/cmd/one"}, version)


def install_go(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    go = folder / "bin" / "go"
    go.parent.mkdir()
    go.write_text(GO.format(folder=folder, body=body))
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:/usr/bin:/bin")


def builds(folder: Path) -> int:
    return (folder / "builds").read_text().count("built")


def test_a_set_is_built_once(own: ToolSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_go(monkeypatch, tmp_path, WRITES)
    assert tools.find(own) is None
    folder = tools.ensure(own)
    assert [path.name for path in folder.iterdir()] == ["first"]
    assert tools.ensure(own) == tools.find(own) == folder
    assert builds(tmp_path) == 1


def test_another_version_is_another_build(own: ToolSet) -> None:
    before = tools.home(own)
    mod = own.folder / "go.mod"
    mod.write_text(mod.read_text().replace("v1.2.3", "v1.2.4"))
    assert tools.home(own) != before
    assert tools.linked(own).endswith("-X example.com/one.Version=v1.2.4")


def test_those_who_ask_at_once_wait_for_one_build(
    own: ToolSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_go(monkeypatch, tmp_path, WRITES)
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(tools.ensure, [own] * 4)] == [tools.home(own)] * 4
    assert builds(tmp_path) == 1


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("write /tmp/x: no space left on device", "the disk is full"),
        ("go: go.mod requires go >= 1.26.0 (running go 1.22)", "needs Go 1.26.0 or newer"),
        ("Get https://proxy.invalid: dial tcp: lookup: no such host", "a network is needed"),
        ("go: module lookup disabled by GOPROXY=off", "GOPROXY forbids it"),
        ("compile: signal: killed", "want of memory"),
        ("one.go:1:1: syntax error", "syntax error"),
    ],
)
def test_a_failure_says_what_is_needed_and_leaves_nothing(
    own: ToolSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, said: str, meaning: str
) -> None:
    install_go(monkeypatch, tmp_path, f"{WRITES}\necho '{said}' >&2\nexit 1")
    with pytest.raises(ToolsError, match=meaning):
        tools.ensure(own)
    assert tools.find(own) is None
    assert [path.name for path in tools.cache().iterdir()] == ["own.lock"]


def test_what_a_killed_build_left_is_removed(
    own: ToolSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_go(monkeypatch, tmp_path, WRITES)
    (tools.cache() / "own.part").mkdir(parents=True)
    (tools.cache() / "own.part" / "half").touch()
    assert [path.name for path in tools.ensure(own).iterdir()] == ["first"]


def test_without_go_it_is_said(
    own: ToolSet,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "INSTALLED", str(tmp_path))
    monkeypatch.setitem(SETS, "own", own)
    assert tools.main(["own"]) == 1
    assert "Go is needed" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_told(
    own: ToolSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_go(monkeypatch, tmp_path, WRITES)
    (tmp_path / "file").touch()
    monkeypatch.setenv("JANGADA_TOOLS", str(tmp_path / "file" / "below"))
    with pytest.raises(ToolsError, match="JANGADA_TOOLS names another"):
        tools.ensure(own)


def test_a_set_that_is_unknown_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert tools.main(["nothing"]) == 2
    assert CONTROL.name in capsys.readouterr().err


@pytest.mark.parametrize("name", SETS)
def test_each_set_pins_what_it_builds(name: str) -> None:
    """Its programs are the tools of its go.mod, and the versions that they tell are in there."""
    found = SETS[name]
    text = (found.folder / "go.mod").read_text("utf-8")
    several = re.search(r"^tool \((.*?)^\)", text, re.MULTILINE | re.DOTALL)
    named = several[1].split() if several else re.findall(r"^tool (\S+)$", text, re.MULTILINE)
    assert sorted(named) == sorted(found.programs.values())
    assert "-X" in tools.linked(found)
    assert (found.folder / "go.sum").exists()


def test_programs_are_called_as_people_call_them() -> None:
    assert tools.executable_name("go.etcd.io/etcd/server/v3") == "server"
    assert set(CONTROL.programs) >= {"etcd", "kubectl", "kwok"}
    assert os.sep not in "".join(CONTROL.programs)
