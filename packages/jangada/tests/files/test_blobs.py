"""What every blob store promises, asked of the local folder and of S3 (moto's server)."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from jangada.config import Environment, Settings, StorageSettings
from jangada.environment import InvalidSettings
from jangada.files.blobs import BlobStore, batches, open_blobs, usable_storage
from jangada.files.errors import BlobNotFound, StorageUnavailable

pytestmark = pytest.mark.anyio

KEY = "0197-tenant/0198-file"
PIECE = bytes(range(256)) * 256  # 64 KiB, as servers read


class Leftovers:
    """What is in a store besides whole blobs, and the whole ones."""

    def __init__(self, blobs: Callable[[], list[str]], parts: Callable[[], list[str]]) -> None:
        self.blobs, self.parts = blobs, parts


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> StorageSettings:
    if request.param == "local":
        return StorageSettings(url=f"file://{tmp_path / 'deep' / 'files'}")
    settings: StorageSettings = request.getfixturevalue("s3_storage")
    return settings


@pytest.fixture
def store(storage: StorageSettings) -> BlobStore:
    return open_blobs(storage)


@pytest.fixture
def leftovers(request: pytest.FixtureRequest, storage: StorageSettings) -> Leftovers:
    if storage.url.startswith("file://"):
        root = Path(storage.url.removeprefix("file://"))
        return Leftovers(lambda: _files(root, part=False), lambda: _files(root, part=True))
    client, bucket = request.getfixturevalue("s3"), request.getfixturevalue("s3_bucket")
    for found in client.list_objects_v2(Bucket=bucket).get("Contents", ()):
        client.delete_object(Bucket=bucket, Key=found["Key"])
    return Leftovers(
        lambda: [o["Key"] for o in client.list_objects_v2(Bucket=bucket).get("Contents", ())],
        lambda: [u["Key"] for u in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())],
    )


def _files(root: Path, *, part: bool) -> list[str]:
    found = (path for path in root.rglob("*") if path.is_file())
    return [path.name for path in found if (path.suffix == ".part") is part]


async def chunks(count: int, *, then: BaseException | None = None) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield PIECE
    if then is not None:
        raise then


async def read(store: BlobStore, **range_: int) -> bytes:
    return b"".join([chunk async for chunk in store.open(KEY, **range_)])


@pytest.mark.parametrize("count", [0, 1, 16, 17, 128, 129, 400])
async def test_what_is_put_is_read(store: BlobStore, count: int) -> None:
    assert await store.put(KEY, chunks(count)) == count * len(PIECE)
    assert await read(store) == PIECE * count


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 1),
        (5, 5),
        (65_535, 65_537),
        (0, None),
        (9_000_000, None),
        (1, 99_999_999),
        (99_999_999, None),
    ],
)
async def test_a_range_is_read(store: BlobStore, start: int, end: int | None) -> None:
    await store.put(KEY, chunks(150))
    found = b"".join([chunk async for chunk in store.open(KEY, start=start, end=end)])
    assert found == (PIECE * 150)[start:end]


async def test_views_are_stored_as_bytes_are(store: BlobStore) -> None:
    async def views() -> AsyncIterator[memoryview | bytearray]:
        yield memoryview(b"abcdef")[1:4]
        yield bytearray(b"")
        yield bytearray(b"xyz")

    assert await store.put(KEY, views()) == 6
    assert await read(store) == b"bcdxyz"


@pytest.mark.parametrize("count", [1, 400])
async def test_a_body_that_fails_leaves_nothing(
    store: BlobStore, leftovers: Leftovers, count: int
) -> None:
    error = ConnectionResetError("the sender left")
    with pytest.raises(ConnectionResetError, match="the sender left"):
        await store.put(KEY, chunks(count, then=error))
    assert (leftovers.blobs(), leftovers.parts()) == ([], [])
    with pytest.raises(BlobNotFound):
        await read(store)


@pytest.mark.parametrize("count", [1, 400])
async def test_cancelling_leaves_nothing(
    store: BlobStore, leftovers: Leftovers, count: int
) -> None:
    is_waiting = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        async for chunk in chunks(count):
            yield chunk
        is_waiting.set()
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(store.put(KEY, stalls()))
    await asyncio.wait_for(is_waiting.wait(), 30)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (leftovers.blobs(), leftovers.parts()) == ([], [])


async def test_nothing_can_be_read_before_it_is_complete(
    store: BlobStore, leftovers: Leftovers
) -> None:
    async def looks() -> AsyncIterator[bytes]:
        async for chunk in chunks(400):
            yield chunk
        with pytest.raises(BlobNotFound):
            await read(store)
        assert leftovers.blobs() == []

    await store.put(KEY, looks())
    assert len(leftovers.blobs()) == 1


async def test_delete_removes_and_is_idempotent(store: BlobStore, leftovers: Leftovers) -> None:
    await store.put(KEY, chunks(1))
    await store.delete(KEY)
    await store.delete(KEY)
    assert leftovers.blobs() == []
    with pytest.raises(BlobNotFound):
        await read(store)


@pytest.mark.parametrize("key", ["", "../x", "/etc/passwd", "a//b", "a/../b", "a.part", "A", "a\n"])
async def test_only_keys_of_ours_are_taken(store: BlobStore, key: str) -> None:
    with pytest.raises(ValueError, match="not a blob key"):
        await store.put(key, chunks(1))
    with pytest.raises(ValueError, match="not a blob key"):
        await store.delete(key)
    with pytest.raises(ValueError, match="not a blob key"):
        await anext(store.open(key))


async def test_an_object_store_that_is_away_is_unavailable() -> None:
    options = {"endpoint": "http://127.0.0.1:1", "region": "x", "allow_http": "true"}
    secret = {"access_key_id": "key", "secret_access_key": "secret"}
    store = open_blobs(StorageSettings(url="s3://none", options=options | secret))
    for count in (1, 400):
        with pytest.raises(StorageUnavailable):
            await store.put(KEY, chunks(count))
    with pytest.raises(StorageUnavailable):
        await read(store)
    with pytest.raises(StorageUnavailable):
        await store.delete(KEY)


async def test_a_bucket_that_is_absent_is_unavailable(s3_storage: StorageSettings) -> None:
    settings = s3_storage.model_copy(update={"url": "s3://no-such-bucket"})
    for count in (1, 400):
        with pytest.raises(StorageUnavailable):
            await open_blobs(settings).put(KEY, chunks(count))


@pytest.mark.parametrize(
    ("url", "options"),
    [("s3://", {}), ("s3://b", {"no_such_option": "x"})],
)
def test_settings_that_no_store_understands_are_named(url: str, options: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings, match="JANGADA_STORAGE__URL"):
        open_blobs(StorageSettings(url=url, options=options))


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        (Environment.DEVELOPMENT, "file://.jangada/files"),
        (Environment.PRODUCTION, "file:///srv/files"),
        (Environment.PRODUCTION, "s3://bucket/prefix"),
    ],
)
def test_storage_that_all_processes_find_is_let_through(environment: Environment, url: str) -> None:
    settings = Settings(environment=environment, storage=StorageSettings(url=url))
    assert usable_storage(settings) is open_blobs(settings.storage)


def test_a_relative_path_is_refused_in_production() -> None:
    with pytest.raises(InvalidSettings, match=r"JANGADA_STORAGE__URL: .*`file:///`"):
        usable_storage(Settings(environment=Environment.PRODUCTION))


def test_equal_settings_share_a_store(tmp_path: Path) -> None:
    first = open_blobs(StorageSettings(url=f"file://{tmp_path}"))
    assert open_blobs(StorageSettings(url=f"file://{tmp_path}")) is first


async def test_batches_hold_what_they_must_and_no_more() -> None:
    sizes = [[len(bytes(chunk)) for chunk in batch] async for batch in batches(chunks(5), 100_000)]
    assert sizes == [[65_536, 65_536], [65_536, 65_536], [65_536]]


async def test_tiny_chunks_do_not_pile_up() -> None:
    async def drops() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x"

    assert [len(batch) async for batch in batches(drops(), 1 << 20)] == [512, 488]


# obstore's threads may be at work still when all is read, and an interpreter that ends beside them
# is aborted (Python < 3.14, gh-87135): so it doesn't end, its process does.
STREAM = """
import asyncio, os, re, sys
from pathlib import Path
from jangada.config import StorageSettings
from jangada.files.blobs import open_blobs

async def body(count):
    for _ in range(count):
        yield bytes(65536)

def peak():
    # Not getrusage: what that says begins with the size of whoever started this process.
    found = int(re.search(r"VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())[1])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    return found

async def main(settings):
    store = open_blobs(settings)
    await store.put("a/small", body(256))
    async for _ in store.open("a/small", end=1):
        pass
    peak()
    before = peak()
    size = 0
    async for chunk in store.open("a/small"):
        size += len(chunk)
    assert size == 256 * 65536
    reading = peak() - before
    await store.put("a/large", body(1024))
    print(reading // 1024, (peak() - before) // 1024, flush=True)
    os._exit(0)

asyncio.run(main(StorageSettings.model_validate_json(sys.argv[1])))
"""


async def test_memory_is_flat_whatever_the_size(storage: StorageSettings) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STREAM, storage.model_dump_json(), stdout=PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0
    reading, writing = map(int, out.split())
    assert reading < 10, "MiB that reading 16 MiB took"
    assert writing < 38, "MiB that writing 64 MiB took"
