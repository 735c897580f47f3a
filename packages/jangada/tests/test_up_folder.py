"""The data folder: private, ours alone, and never at the cost of somebody else's files."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from jangada.local import folders
from jangada.local.data_folder import DataFolder
from jangada.local.errors import DataUnusable, FolderInUse, FolderUnusable
from jangada.local.folders import SOCKET_PATH_BYTES, Folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data"


def opened(path: Path) -> DataFolder:
    return DataFolder(path).open()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_private(path: Path) -> None:
    folder = opened(path / "deep" / "er")
    assert mode(folder.path) == 0o700
    assert mode(folder.path / "logs") == 0o700
    folder.close()


def test_an_empty_folder_is_taken_over(path: Path) -> None:
    path.mkdir(mode=0o755)
    opened(path).close()
    assert mode(path) == 0o700


def test_a_folder_with_other_things_is_refused_unchanged(path: Path) -> None:
    path.mkdir(mode=0o755)
    (path / "thesis.txt").write_text("years of work")
    with pytest.raises(FolderUnusable, match="holds other things"):
        opened(path)
    assert mode(path) == 0o755
    assert [p.name for p in path.iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_folder_is_refused(path: Path) -> None:
    path.write_text("a file")
    with pytest.raises(FolderUnusable, match="Not a directory"):
        opened(path)
    with pytest.raises(FolderUnusable, match="Not a directory"):
        opened(path / "below")


def test_a_folder_that_others_can_enter_is_refused(path: Path) -> None:
    opened(path).close()
    path.chmod(0o750)
    with pytest.raises(FolderUnusable, match="open to others"):
        opened(path)


def test_a_folder_of_another_format_is_refused(path: Path) -> None:
    opened(path).close()
    (path / "platform.json").write_text('{"format": 99}')
    with pytest.raises(DataUnusable, match="format 99"):
        opened(path)
    assert json.loads((path / "platform.json").read_text()) == {"format": 99}


@pytest.mark.parametrize("text", ["", "[]", "no json"])
def test_a_damaged_marker_is_written_anew(path: Path, text: str) -> None:
    opened(path).close()
    (path / "platform.json").write_text(text)
    opened(path).close()
    assert json.loads((path / "platform.json").read_text()) == {"format": 1}


def test_one_process_holds_a_folder_at_a_time(path: Path) -> None:
    folder = opened(path)
    with pytest.raises(FolderInUse, match=str(os.getpid())):
        opened(path)
    folder.close()
    opened(path).close()


def test_starting_fresh_deletes_what_is_ours_and_nothing_else(path: Path, tmp_path: Path) -> None:
    folder = opened(path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").write_text("years of work")
    (path / "notes.txt").write_text("mine")
    (path / "files").symlink_to(elsewhere)
    (path / "postgres").mkdir()
    (path / "postgres" / "data").write_text("rows")
    key = folder.master_key()
    folder.erase()
    assert {p.name for p in path.iterdir()} == {"lock", "logs", "notes.txt", "platform.json"}
    assert (elsewhere / "thesis.txt").exists()
    assert folder.master_key() != key
    folder.close()


def test_the_master_key_is_private_and_lasting(path: Path) -> None:
    folder = opened(path)
    key = folder.master_key()
    folder.close()
    assert len(key.encode()) >= 32
    assert mode(path / "master-key") == 0o600
    folder.open()
    assert folder.master_key() == key
    folder.close()


def test_the_demo_sign_in_is_new_until_it_is_made(path: Path) -> None:
    folder = opened(path)
    first = folder.new_demo()
    assert first is not None
    assert mode(first.path) == 0o600
    assert folder.new_demo() == first
    first.keep()
    assert folder.new_demo() is None
    assert json.loads(first.path.read_text())["password"] == first.password
    folder.close()


def test_the_environment_file_is_read_by_a_shell(path: Path) -> None:
    folder = opened(path)
    value = 'it\'s $HOME `here` "and" \\ there'
    folder.write_environment({"JANGADA_X": value})
    assert mode(path / "environment") == 0o600
    answer = subprocess.run(  # noqa: S603 - a constant program
        ["/bin/sh", "-c", f"set -a; . '{path}/environment'; printenv JANGADA_X"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == f"{value}\n"
    folder.close()


def test_temporary_sockets_stay_where_they_are_until_the_end(tmp_path: Path) -> None:
    """A server that is started again keeps its URL."""
    folder = Folder(tmp_path / ("x" * SOCKET_PATH_BYTES)).open()
    place = folder.sockets("s")
    (place / "s").write_text("left by a killed server")
    assert folder.sockets("s") == place
    assert list(place.iterdir()) == []
    folder.close()
    assert not place.exists()


def test_a_reused_temporary_name_is_not_deleted(tmp_path: Path) -> None:
    folder = Folder(tmp_path / ("x" * SOCKET_PATH_BYTES)).open()
    folders.write_private(folder.path / "sockets", f"{tmp_path / 'gone'}\n")
    place = folder.sockets("s")
    assert place != tmp_path / "gone"
    folder.close()


def test_a_long_temporary_folder_gives_way_to_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("t" * SOCKET_PATH_BYTES)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    folder = Folder(tmp_path / ("x" * SOCKET_PATH_BYTES)).open()
    place = folder.sockets("s")
    assert len(os.fsencode(place)) < SOCKET_PATH_BYTES
    assert mode(place) == 0o700
    folder.close()


def test_no_place_for_sockets_is_said(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data").open()
    with pytest.raises(FolderUnusable, match="TMPDIR"):
        folder.sockets("s" * SOCKET_PATH_BYTES)
    folder.close()
