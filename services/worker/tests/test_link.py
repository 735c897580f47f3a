"""Parent and child, where one of them ends at the worst moment."""

import socket

import msgspec
import pytest

from jangada_worker.link import Farewell, Ready, parent_end

pytestmark = pytest.mark.anyio


async def test_a_child_that_is_killed_amid_a_line_is_gone_and_no_more() -> None:
    """Its parent lives on, and so do all the others."""
    ours, theirs = socket.socketpair()
    link = await parent_end(ours)
    said = [msgspec.json.encode(each) for each in (Ready([], {}), Farewell())]
    with theirs:
        theirs.sendall(said[0] + b"\n" + said[1][:-1])
    assert [type(each) async for each in link.messages()] == [Ready]
    link.close()
