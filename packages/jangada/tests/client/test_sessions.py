"""Sessions that are kept between commands: private, whole, and refreshed once for all."""

import json
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from jangada.client.sessions import Session, SessionStore, user_sessions

SERVER = "https://jangada.example.com"
SESSION = Session(SERVER, "ana@example.com", "access", "refresh", time.time() + 900)


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "jangada" / "sessions")


def test_a_session_is_found_again(store: SessionStore) -> None:
    store.save(SESSION)
    assert store.find(SERVER) == SESSION
    assert store.find("https://other.example.com") is None


@pytest.mark.parametrize("variable", ["", "config", None])
def test_sessions_are_never_kept_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    for name in ("here", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    if variable is not None:
        monkeypatch.setenv("XDG_CONFIG_HOME", variable)
    user_sessions().save(SESSION)
    assert list((tmp_path / "home").rglob("*.json"))
    assert not list((tmp_path / "here").iterdir())


def test_only_its_owner_can_read_it(store: SessionStore, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with store.locked(SERVER):
            store.save(SESSION)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "jangada" / "sessions").stat().st_mode) == 0o700


def test_nothing_of_it_is_in_a_file_name(store: SessionStore, tmp_path: Path) -> None:
    store.save(SESSION)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"]
    assert "example" not in str([*tmp_path.rglob("*")])


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", json.dumps({"server": SERVER})])
def test_a_file_that_is_no_session_counts_as_none(
    store: SessionStore, tmp_path: Path, content: str
) -> None:
    store.save(SESSION)
    path = next(path for path in tmp_path.rglob("*.json"))
    path.write_text(content)
    assert store.find(SERVER) is None


def test_the_last_server_is_forgotten_with_its_session(store: SessionStore) -> None:
    assert store.last_server() is None
    store.save(SESSION)
    store.make_last(SERVER)
    assert store.last_server() == SERVER
    store.remove(SERVER)
    assert store.last_server() is None
    assert store.find(SERVER) is None


def test_removing_another_session_keeps_the_last_server(store: SessionStore) -> None:
    store.make_last(SERVER)
    store.remove("https://other.example.com")
    assert store.last_server() == SERVER


@pytest.mark.parametrize(("seconds", "is_fresh"), [(900, True), (59, False), (-1, False)])
def test_a_token_is_fresh_until_shortly_before_its_end(seconds: int, *, is_fresh: bool) -> None:
    assert replace(SESSION, expires_at=time.time() + seconds).is_fresh() is is_fresh


def test_the_lock_lets_one_in_at_a_time(store: SessionStore) -> None:
    inside, most, guard = 0, 0, threading.Lock()

    def change(number: int) -> None:
        nonlocal inside, most
        with store.locked(SERVER):
            with guard:
                inside += 1
                most = max(most, inside)
            store.save(replace(SESSION, access_token=str(number)))
            with guard:
                inside -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(change, range(24)))
    assert most == 1


def test_a_link_in_the_locks_place_is_not_followed(store: SessionStore, tmp_path: Path) -> None:
    with store.locked(SERVER):
        pass
    lock = next(tmp_path.rglob("*.lock"))
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")

    def enter() -> None:
        with store.locked(SERVER):
            raise AssertionError("the link was followed")

    refused: Callable[[], None] = enter
    with pytest.raises(OSError, match="symbolic link"):
        refused()
