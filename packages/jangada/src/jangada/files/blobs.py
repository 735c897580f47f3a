"""The blob store: where the content of files lies, behind one small protocol.

Guarantees of every store
- `put` streams: memory is bounded by a few batches whatever the size, and there is no second copy.
  When it returns the content is durable and complete; until then nobody can read it; when it raises
  (also when it is cancelled) nothing of it is left, or `delete` of the same key removes what is.
- `delete` is idempotent.
- Nothing is hashed: SHA-256 takes 0.6 s per GB even where the processor has instructions for it,
  more than the writing does, and disks and object stores have checksums of their own.
- No call waits without a deadline. What fails outside raises `StorageUnavailable`.
"""

import re
from collections.abc import AsyncIterable, AsyncIterator, Buffer
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote

from jangada.config import Environment, Settings, StorageSettings
from jangada.environment import InvalidSettings
from jangada.errors import FieldError

MEBIBYTE: Final = 1024 * 1024
_KEY: Final = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)*")


class BlobStore(Protocol):
    """Content by key. Keys are ours (`checked_key`), never a user's; each is written once."""

    async def put(self, key: str, body: AsyncIterable[Buffer]) -> int:
        """Store the whole body and return its size. An error of the body passes unchanged."""

    def open(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`, in chunks. Raises `BlobNotFound` on the first."""

    async def delete(self, key: str) -> None:
        """Remove the content and what an interrupted `put` left of it; absent is fine."""


def open_blobs(settings: StorageSettings) -> BlobStore:
    """The store that the settings name; the same one for equal settings, as it pools connections.

    Raises `InvalidSettings` for a URL or an option that no store understands.
    """
    return _open(settings.url, tuple(sorted(settings.options.items())))


def usable_storage(settings: Settings) -> BlobStore:
    """The store, without a look into it; raises `InvalidSettings` where it can't be used.

    A relative path is refused in production: API and workers would each look below their own
    working directory.
    """
    path = settings.storage.url.removeprefix("file://")
    is_relative = path != settings.storage.url and not path.startswith("/")
    if is_relative and settings.environment is Environment.PRODUCTION:
        raise invalid_url(
            "is a relative path, which API and workers may take for different folders; give "
            "`file:///` and an absolute path that all of them reach, or an object store"
        )
    return open_blobs(settings.storage)


@lru_cache(maxsize=4)
def _open(url: str, options: tuple[tuple[str, str], ...]) -> BlobStore:
    if url.startswith("file://"):
        from jangada.files.local_blobs import LocalBlobs  # noqa: PLC0415 - only the chosen store

        return LocalBlobs(Path(unquote(url.removeprefix("file://"))))
    from jangada.files.object_blobs import ObjectBlobs  # noqa: PLC0415 - only the chosen store

    return ObjectBlobs(url, dict(options))


def invalid_url(detail: str) -> InvalidSettings:
    key = "JANGADA_STORAGE__URL"
    return InvalidSettings(
        f"{key}: {detail}", errors=[FieldError(key, InvalidSettings.code, detail)]
    )


def checked_key(key: str) -> str:
    """The key, proven to name nothing outside the store. A wrong one is a fault of ours."""
    if _KEY.fullmatch(key) is None:
        raise ValueError("not a blob key")
    return key


async def batches(
    body: AsyncIterable[Buffer], size: int, *, max_chunks: int = 512
) -> AsyncIterator[list[Buffer]]:
    """The body in lists of chunks that together have at least `size` bytes, the last one fewer.

    Nothing is copied. `max_chunks` bounds what a sender of tiny chunks can make us hold.
    """
    batch: list[Buffer] = []
    held = 0
    async for chunk in body:
        batch.append(chunk)
        held += memoryview(chunk).nbytes
        if held >= size or len(batch) >= max_chunks:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
