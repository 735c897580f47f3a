"""Blobs in a folder of this machine, or on a volume that API and workers share.

obstore's own local store does not flush to disk and cannot be told to, hence this adapter: content
is written to `KEY.part`, flushed, renamed to `KEY`, and the folder is flushed. Folders are 0700 and
files 0600. Disk work happens in threads of its own, so that a disk that hangs stops neither the
event loop nor anybody else's threads, and beside the receiving of the next batch.
"""

import asyncio
import os
from asyncio import Future
from collections.abc import AsyncIterable, AsyncIterator, Buffer, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Final

from jangada.files.blobs import MEBIBYTE, batches, checked_key
from jangada.files.errors import BlobNotFound, StorageUnavailable
from jangada.telemetry import get_logger

log = get_logger(__name__)

BATCH_BYTES: Final = MEBIBYTE
DEADLINE: Final = timedelta(minutes=2)  # flushing a gigabyte to a slow disk takes its time
THREADS: Final = 16


class LocalBlobs:
    """A `BlobStore` in a folder, which is made with its first blob."""

    def __init__(self, root: Path, *, deadline: timedelta = DEADLINE) -> None:
        self._root = root.absolute()
        self._deadline = deadline.total_seconds()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blobs")

    async def put(self, key: str, body: AsyncIterable[Buffer]) -> int:
        part = _Part(self._root, checked_key(key))
        written: Future[None] = self._start(part.open)
        try:
            async for batch in batches(body, BATCH_BYTES):
                await self._finish(written)
                written = self._start(part.append, batch)
            await self._finish(written)
            return await self._run(part.publish)
        except BaseException:
            _forget(written)
            with suppress(StorageUnavailable):
                await asyncio.shield(self._run(part.discard))
            raise

    async def open(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        path = self._root / checked_key(key)
        while chunk := await self._run(_read, path, start, _step(start, end)):
            yield chunk
            start += len(chunk)

    async def delete(self, key: str) -> None:
        await self._run(_remove, self._root, checked_key(key))

    async def _run[**P, T](self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._finish(self._start(act, *args, **kwargs))

    def _start[**P, T](self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return asyncio.wrap_future(self._threads.submit(act, *args, **kwargs))

    async def _finish[T](self, work: Future[T]) -> T:
        try:
            async with asyncio.timeout(self._deadline):
                return await work
        except OSError as error:  # TimeoutError is one
            log.warning("storage_failed", error=type(error).__name__, errno=error.errno)
            raise StorageUnavailable(
                "The file storage does not work at the moment.", retry_after=timedelta(seconds=10)
            ) from error


class _Part:
    """A blob being written. Its methods run in threads, one at a time, and none after `discard`."""

    def __init__(self, root: Path, key: str) -> None:
        self._root = root
        self._key = key
        self._lock = Lock()
        self._file: int | None = None
        self._is_mine = False
        self._is_over = False
        self._size = 0

    def open(self) -> None:
        with self._lock:
            if not self._is_over:
                self._file = _create(self._root, self._key)
                self._is_mine = True

    def append(self, batch: Sequence[Buffer]) -> None:
        with self._lock:
            if self._file is None:
                return
            self._size += _write(self._file, batch)

    def publish(self) -> int:
        with self._lock:
            if self._file is None:
                raise FileNotFoundError(self._key)
            os.fsync(self._file)
            self._close()
            path = self._root / self._key
            _part_of(path).rename(path)
            _flush_folder(path.parent)
            return self._size

    def discard(self) -> None:
        """Remove what this writer made, and nothing that another one of the same key did."""
        with self._lock:
            self._is_over = True
            self._close()
            if self._is_mine:
                _remove(self._root, self._key)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _forget(work: Future[None]) -> None:
    """Give the work up; its error, if it had one, is not what the caller is told."""
    if not work.cancel() and not work.cancelled():
        work.exception()


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _create(root: Path, key: str) -> int:
    """A new file for the blob's part; whoever empties the folder meanwhile makes us try again."""
    part = _part_of(root / key)
    for _ in range(3):
        _make_folder(part.parent)
        with suppress(FileNotFoundError):
            return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    raise FileNotFoundError(part)


def _make_folder(folder: Path) -> None:
    """The folder with its parents, each readable by us only and durable."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(file: int, batch: Sequence[Buffer]) -> int:
    """Write all of the batch, with as few system calls as the kernel allows; returns its bytes."""
    pending = [memoryview(chunk).cast("B") for chunk in batch]
    size = sum(view.nbytes for view in pending)
    while pending:
        written = os.writev(file, pending)
        while pending and written >= pending[0].nbytes:
            written -= pending.pop(0).nbytes
        if pending:
            pending[0] = pending[0][written:]
    return size


def _read(path: Path, start: int, size: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BlobNotFound("The content of the file is gone.") from None
    try:
        return os.pread(descriptor, size, start)
    finally:
        os.close(descriptor)


def _step(start: int, end: int | None) -> int:
    return MEBIBYTE if end is None else max(0, min(MEBIBYTE, end - start))


def _remove(root: Path, key: str) -> None:
    path = root / key
    _part_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    with suppress(OSError):  # the tenant has other files
        path.parent.rmdir()
