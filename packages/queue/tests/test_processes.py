"""What another process says, and what is left of it when it is killed."""

import asyncio

import pytest

from jangada_queue.processes import whole_lines

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("rest", [b"", b'{"type":"Report","runn'])
async def test_half_a_line_was_not_said(rest: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"one\n\ntwo\n" + rest)
    reader.feed_eof()
    assert [line async for line in whole_lines(reader)] == [b"one\n", b"\n", b"two\n"]
