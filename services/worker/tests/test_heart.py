"""The heart, where a process ends at the worst moment."""

import asyncio
import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, cast
from uuid import UUID

import pytest

from jangada.jobs.delivery.connection import DirectConnection
from jangada.jobs.delivery.workers import NewWorker
from jangada_worker.forkserver import Forked, ForkServer
from jangada_worker.link import parent_end
from jangada_worker.parent.children import Child
from jangada_worker.parent.heart import Heart

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


async def test_a_process_that_ends_while_it_is_registered_leaves_no_worker(raft: "Raft") -> None:
    """Nobody else knows its id: its supervisor finds no worker to bury."""
    ours, theirs = socket.socketpair()
    running = asyncio.get_running_loop().create_future()
    nobody = cast("ForkServer", None)
    child = Child(Forked(nobody, os.getpid(), running), await parent_end(ours), "pod")
    child.is_ready = True
    children = [child]

    def describe(worker: UUID, _: Child) -> NewWorker:
        children.clear()
        return NewWorker(worker, "pod", "host", os.getpid(), "1", ["default"], 1)

    connection = DirectConnection(raft.runtime.database, deadline=timedelta(seconds=30))
    heart = Heart(
        connection,
        raft.runtime.queue,
        interval=1,
        children=lambda: list(children),
        describe=describe,
        failed=lambda: None,
    )
    with theirs:
        assert await heart.beat()
        assert child.worker is None
        assert await heart.beat()
        assert await raft.execute("SELECT id FROM workers") == []
        child._link.close()
    await connection.close()
