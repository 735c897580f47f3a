"""What only an object store needs: to be asked ahead, and to be waited for when nobody waits."""

import asyncio
import re
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import obstore
import pytest

from jangada.config import StorageSettings
from jangada.files.blobs import MEBIBYTE, BlobStore, open_blobs
from jangada.testing import eventually

pytestmark = pytest.mark.anyio

KEY = "0197-tenant/0198-held"
WHOLE, LAST = re.compile(rb"PUT "), re.compile(rb"POST \S+uploadId=")
"""The requests after which a blob is there: of one in one piece, of one in parts."""


async def body(mebibytes: int) -> AsyncIterator[bytes]:
    for _ in range(mebibytes):
        yield bytes(MEBIBYTE)


class Asked(list[tuple[int, int]]):
    """Which ranges the store was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        really = obstore.get_range_async

        def asked(store: Any, key: str, *, start: int, end: int) -> Any:  # noqa: ANN401 - obstore's
            self.append((start // MEBIBYTE, end // MEBIBYTE))
            return really(store, key, start=start, end=end)

        monkeypatch.setattr(obstore, "get_range_async", asked)


async def test_the_next_chunk_is_fetched_while_one_is_used(
    s3_storage: StorageSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked, ours = open_blobs(s3_storage), Asked(monkeypatch), len(asyncio.all_tasks())
    await store.put(KEY, body(3))
    reading = store.open(KEY)
    first = await anext(aiter(reading))
    assert len(first) == MEBIBYTE
    await eventually(lambda: asked == [(0, 1), (1, 2)])
    await reading.aclose()  # type: ignore[attr-defined] # it is a generator
    await eventually(lambda: len(asyncio.all_tasks()) == ours)
    assert [chunk async for chunk in store.open(KEY, start=5, end=5)] == []
    assert len(asked) == 2


class Held:
    """A way to the S3 server, on which requests that match are held back."""

    def __init__(self, url: str, pattern: re.Pattern[bytes]) -> None:
        self._upstream, self._pattern = urlsplit(url), pattern
        self.is_held, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(
            self._upstream.hostname, self._upstream.port
        )
        await asyncio.gather(self._pass(reader, requests), self._pass(answers, writer))

    async def _pass(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if self._pattern.match(data):
                    self.is_held.set()
                    await self.may_go_on.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    @asynccontextmanager
    async def store(self, storage: StorageSettings) -> AsyncIterator[BlobStore]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        options = storage.options | {"endpoint": f"http://{host}:{port}"}
        yield open_blobs(storage.model_copy(update={"options": options}))
        server.close()
        server.close_clients()
        await server.wait_closed()


@pytest.mark.parametrize(("mebibytes", "pattern"), [(1, WHOLE), (11, LAST)])
async def test_who_cancels_at_the_last_request_leaves_nothing(
    *,
    s3: Any,  # noqa: ANN401 - boto3 has no types
    s3_bucket: str,
    s3_storage: StorageSettings,
    mebibytes: int,
    pattern: re.Pattern[bytes],
) -> None:
    """It is on its way, and the store may do it: what comes of it is removed afterwards."""
    held = Held(s3.meta.endpoint_url, pattern)
    async with held.store(s3_storage) as store:
        putting = asyncio.create_task(store.put(KEY, body(mebibytes)))
        await held.is_held.wait()
        putting.cancel()
        held.may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await putting
    found = await asyncio.to_thread(s3.list_objects_v2, Bucket=s3_bucket, Prefix=f"files/{KEY}")
    parts = await asyncio.to_thread(s3.list_multipart_uploads, Bucket=s3_bucket)
    assert (found["KeyCount"], parts.get("Uploads", [])) == (0, [])
