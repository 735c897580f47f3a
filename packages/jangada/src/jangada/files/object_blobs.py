"""Blobs in an object store: S3 and what speaks its protocol, Google Cloud Storage, Azure.

An upload that ends early is aborted, so it leaves no parts behind; only a process that is killed
while it streams can leave some. No listing shows those; the store's own rule for incomplete
multipart uploads removes them (`docs/limits.md`).
"""

import asyncio
from asyncio import Future
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Buffer
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from jangada.files.blobs import MEBIBYTE, batches, checked_key, invalid_url
from jangada.files.errors import BlobNotFound, StorageUnavailable
from jangada.telemetry import get_logger

log = get_logger(__name__)

PART_BYTES: Final = 5 * MEBIBYTE
"""The least that S3 takes; it takes 10,000 of them (`config.MOST_IN_OBJECT_STORE`)."""
READ_BYTES: Final = MEBIBYTE
PARALLEL_PARTS: Final = 2
REQUEST_TIMEOUT: Final = timedelta(seconds=30)
CONNECT_TIMEOUT: Final = timedelta(seconds=5)
MAX_RETRIES: Final = 3
RETRY_TIMEOUT: Final = timedelta(seconds=60)
ABORT_DEADLINE: Final = timedelta(seconds=30)


class ObjectBlobs:
    """A `BlobStore` in a bucket. Options are obstore's, such as `endpoint` and `region`."""

    def __init__(self, url: str, options: dict[str, str]) -> None:
        self._store = _connect(url, options)

    async def put(self, key: str, body: AsyncIterable[Buffer]) -> int:
        upload = _Upload(self._store, checked_key(key))
        try:
            async for part in _parts(body):
                await upload.send(part)
                del part  # or it would stay for as long as the next one is collected
            return await upload.complete()
        except BaseException:
            await asyncio.shield(upload.abort())
            raise

    async def open(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """One bounded request per chunk, the next of which is fetched while one is used.

        So no request stays open while the reader takes its time, and who uses a chunk for as long
        as a request takes waits for the first one only.
        """
        size = await self._size(checked_key(key))
        end = size if end is None else min(end, size)
        ahead = self._fetch(key, start, end)
        try:
            while start < end:
                chunk = await ahead
                start += READ_BYTES
                ahead = self._fetch(key, start, end)
                yield chunk
                del chunk
        finally:
            ahead.cancel()

    def _fetch(self, key: str, start: int, end: int) -> Future[bytes]:
        """Begin to fetch the chunk at `start`; nothing is asked for where that is the end."""

        async def fetched() -> bytes:
            stop = min(end, start + READ_BYTES)
            return bytes(
                await _found(obstore.get_range_async(self._store, key, start=start, end=stop))
            )

        if start >= end:
            nothing: Future[bytes] = asyncio.get_running_loop().create_future()
            return nothing
        fetching = asyncio.create_task(fetched())
        # Nobody may come for it, and what went wrong is said to who does.
        fetching.add_done_callback(lambda done: done.cancelled() or done.exception())
        return fetching

    async def _size(self, key: str) -> int:
        return (await _found(obstore.head_async(self._store, key)))["size"]

    async def delete(self, key: str) -> None:
        with suppress(BlobNotFound):
            await _found(obstore.delete_async(self._store, checked_key(key)))


class _Upload:
    """One blob on its way: a single request where it fits into one part, else a multipart upload.

    obstore pulls parts from an iterator and aborts the multipart upload when the iterator raises,
    but not when its own task is cancelled. So it pulls from a queue, in a task that only we end.
    """

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store = store
        self._key = key
        self._held: bytes | None = None
        self._queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(1)
        self._task: Future[Any] | None = None
        self._size = 0

    async def send(self, part: bytes) -> None:
        """Hold the first part, for it may be the only one; from the second on all go at once."""
        self._size += len(part)
        if self._held is None and self._task is None:
            self._held = part
            return
        if self._task is None:
            held, self._held = self._held, None
            await self._stream(held)
        await self._stream(part)

    async def complete(self) -> int:
        if self._task is None:
            self._task = asyncio.ensure_future(
                obstore.put_async(self._store, self._key, self._held or b"")
            )
        else:
            await self._stream(None)
        # Waited for from outside: who cancels us would cancel it, and nobody would clear up.
        await asyncio.wait({self._task})
        await _ask(self._task)
        return self._size

    async def abort(self) -> None:
        """Leave nothing behind; a store that does not answer is waited for until a deadline."""
        if self._task is None:
            return
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(UploadAborted())
        with suppress(UploadAborted, BlobNotFound, StorageUnavailable, TimeoutError):
            async with asyncio.timeout(ABORT_DEADLINE.total_seconds()):
                await _ask(self._task)
                # It was complete before it could be ended.
                await _found(obstore.delete_async(self._store, self._key))

    async def _stream(self, part: bytes | None) -> None:
        """Hand a part over, or raise what has ended the upload meanwhile."""
        if self._task is None:
            self._task = self._begin()
        handed = asyncio.ensure_future(self._queue.put(part))
        try:
            await asyncio.wait({handed, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            handed.cancel()
        if self._task.done():
            await _ask(self._task)

    def _begin(self) -> Future[Any]:
        return asyncio.ensure_future(
            obstore.put_async(
                self._store,
                self._key,
                self._pull(),
                chunk_size=PART_BYTES,
                max_concurrency=PARALLEL_PARTS,
            )
        )

    async def _pull(self) -> AsyncIterator[bytes]:
        while (part := await self._queue.get()) is not None:
            if isinstance(part, BaseException):
                raise part
            yield part
            del part


class UploadAborted(Exception):
    """Tells obstore to abort a multipart upload; nobody else sees it."""


async def _parts(body: AsyncIterable[Buffer]) -> AsyncIterator[bytes]:
    async for batch in batches(body, PART_BYTES):
        yield _joined(batch)


def _joined(batch: list[Buffer]) -> bytes:
    """One piece. The batch is empty afterwards: its chunks would stay while the part is sent."""
    part = b"".join(batch)
    batch.clear()
    return part


async def _found[T](call: Awaitable[T]) -> T:
    """As `_ask`, for what may be absent."""
    try:
        return await call
    except FileNotFoundError:
        raise BlobNotFound("The content of the file is gone.") from None
    except (BaseError, OSError) as error:
        raise _failed(error) from error


async def _ask[T](call: Awaitable[T]) -> T:
    """The answer of the store, whose client has the deadlines."""
    try:
        return await call
    except (BaseError, OSError) as error:
        raise _failed(error) from error


def _failed(error: Exception) -> StorageUnavailable:
    log.warning("storage_failed", error=type(error).__name__)
    return StorageUnavailable(
        "The file storage does not work at the moment.", retry_after=timedelta(seconds=10)
    )


def _connect(url: str, options: dict[str, str]) -> ObjectStore:
    is_plain = options.pop("allow_http", "false") == "true"
    try:
        return from_url(
            url,
            config=cast("Any", options),
            client_options={
                "allow_http": is_plain,
                "timeout": REQUEST_TIMEOUT,
                "connect_timeout": CONNECT_TIMEOUT,
            },
            retry_config={"max_retries": MAX_RETRIES, "retry_timeout": RETRY_TIMEOUT},
        )
    except (BaseError, ValueError) as error:
        raise invalid_url(
            f"the store or an option is not understood ({type(error).__name__})"
        ) from error
