"""The local folder: modes, durability, and what a disk does that is full, read-only or hangs."""

import asyncio
import os
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from jangada.config import StorageSettings
from jangada.files.blobs import open_blobs
from jangada.files.errors import BlobNotFound, StorageUnavailable
from jangada.files.local_blobs import LocalBlobs

pytestmark = pytest.mark.anyio

KEY = "tenant/file"


async def body(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file()]


async def test_only_the_owner_may_look(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        await LocalBlobs(tmp_path / "deep" / "files").put(KEY, body(b"x"))
    finally:
        os.umask(before)
    folders = [tmp_path / "deep", tmp_path / "deep/files", tmp_path / "deep/files/tenant"]
    assert [mode(folder) for folder in folders] == [0o700] * 3
    assert mode(tmp_path / "deep/files/tenant/file") == 0o600


async def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir(mode=0o750)
    await LocalBlobs(tmp_path / "files").put(KEY, body(b"x"))
    assert mode(tmp_path / "files") == 0o750


async def test_the_folder_of_a_tenant_goes_with_its_last_file(tmp_path: Path) -> None:
    store = LocalBlobs(tmp_path)
    await store.put("tenant/one", body(b"x"))
    await store.put("tenant/two", body(b"x"))
    await store.delete("tenant/one")
    assert files(tmp_path) == ["two"]
    await store.delete("tenant/two")
    assert not (tmp_path / "tenant").exists()


async def test_content_and_name_are_flushed_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    flush = os.fsync

    def recording(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)
        flushed.append(f"{name} with {sorted(files(tmp_path))}")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    await LocalBlobs(tmp_path).put(KEY, body(b"x"))
    assert flushed == [
        ". with []",
        "tenant/file.part with ['file.part']",
        "tenant with ['file']",
    ]


async def test_what_is_deleted_while_it_is_written_stays_deleted(tmp_path: Path) -> None:
    """The sweep took the writer for dead; the writer wakes up."""
    store = LocalBlobs(tmp_path)

    async def swept() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)
        await asyncio.wait_for(_until(lambda: bool(files(tmp_path))), 30)
        await store.delete(KEY)

    with pytest.raises(StorageUnavailable):
        await store.put(KEY, swept())
    assert files(tmp_path) == []


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - the condition is on the disk
        await asyncio.sleep(0)


async def test_a_second_writer_of_a_key_fails_and_harms_nothing(tmp_path: Path) -> None:
    store = LocalBlobs(tmp_path)

    async def rival() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)
        await asyncio.wait_for(_until(lambda: bool(files(tmp_path))), 30)
        with pytest.raises(StorageUnavailable):
            await store.put(KEY, body(b"second"))

    assert await store.put(KEY, rival()) == 2_000_000
    assert files(tmp_path) == ["file"]


async def test_a_disk_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread ends when the disk answers, and then leaves nothing either."""
    release, flush = threading.Event(), os.fsync

    def hanging(descriptor: int) -> None:
        release.wait(30)
        flush(descriptor)

    store = LocalBlobs(tmp_path, deadline=timedelta(milliseconds=50))
    (tmp_path / "tenant").mkdir()
    monkeypatch.setattr(os, "fsync", hanging)
    with pytest.raises(StorageUnavailable):
        await store.put(KEY, body(b"x"))
    release.set()
    await asyncio.wait_for(_until(lambda: not files(tmp_path)), 30)


def system(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - mount and umount


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    try:
        system("mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(tmp_path))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a full disk is NOT tested: this user may not mount one")
    yield tmp_path
    system("umount", str(tmp_path))


@pytest.fixture
def read_only_disk(small_disk: Path) -> Iterator[Path]:
    """One with a blob `kept` on it."""
    kept = small_disk / KEY
    kept.parent.mkdir()
    kept.write_bytes(b"kept")
    system("mount", "-o", "remount,ro", str(small_disk))
    yield small_disk
    system("mount", "-o", "remount,rw", str(small_disk))


@pytest.mark.root
async def test_a_full_disk_is_unavailable_and_nothing_is_lost(small_disk: Path) -> None:
    store = LocalBlobs(small_disk)
    await store.put("tenant/kept", body(b"kept"))
    with pytest.raises(StorageUnavailable):
        await store.put(KEY, body(*[bytes(1 << 20)] * 8))
    assert files(small_disk) == ["kept"]
    assert [chunk async for chunk in store.open("tenant/kept")] == [b"kept"]
    await store.put(KEY, body(bytes(2 << 20)))


@pytest.mark.root
async def test_a_read_only_disk_is_unavailable_and_still_read(read_only_disk: Path) -> None:
    store = LocalBlobs(read_only_disk)
    with pytest.raises(StorageUnavailable):
        await store.put("tenant/other", body(b"x"))
    with pytest.raises(StorageUnavailable):
        await store.delete(KEY)
    assert [chunk async for chunk in store.open(KEY)] == [b"kept"]


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from jangada.files.errors import StorageUnavailable
from jangada.files.local_blobs import LocalBlobs

async def body():
    for _ in range(8):
        yield bytes(1 << 20)

resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
try:
    asyncio.run(LocalBlobs(Path(sys.argv[1])).put("tenant/file", body()))
except StorageUnavailable as error:
    print(type(error.__cause__).__name__, error.__cause__.errno)
"""


async def test_a_write_that_the_system_refuses_leaves_nothing(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LIMITED, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert b"OSError 27" in out, "EFBIG"
    assert files(tmp_path) == []


async def test_a_path_that_is_no_folder_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("in the way")
    with pytest.raises(StorageUnavailable):
        await LocalBlobs(tmp_path / "files").put(KEY, body(b"x"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_may_not_be_written_is_unavailable(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o500)  # noqa: PTH101 - in a coroutine a Path may not act
    with pytest.raises(StorageUnavailable):
        await LocalBlobs(tmp_path).put(KEY, body(b"x"))


async def test_content_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    store = LocalBlobs(tmp_path)
    await store.put(KEY, body(bytes(3 << 20)))
    reading = store.open(KEY)
    assert len(await anext(reading)) == 1 << 20
    await store.delete(KEY)
    with pytest.raises(BlobNotFound):
        await anext(reading)


async def test_a_url_may_name_any_path(tmp_path: Path) -> None:
    store = open_blobs(StorageSettings(url=f"file://{tmp_path}/with%20space"))
    await store.put(KEY, body(b"x"))
    assert files(tmp_path / "with space") == ["file"]
