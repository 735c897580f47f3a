"""The helper process ends with its worker, however it is, and leaves nothing open."""

import asyncio
import gc
import os
import signal
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jangada.local.valkey import EmbeddedValkey
from jangada.testing import eventually
from jangada_queue.leases.worker import LeaseWorker
from jangada_queue.taskiq import LeasedStreamBroker


@asynccontextmanager
async def worker_of(url: str) -> AsyncIterator[LeaseWorker]:
    broker = LeasedStreamBroker(url)
    broker.is_worker_process = True
    await broker.startup()
    try:
        yield broker.worker
    finally:
        await broker.shutdown()


async def hangs(worker: LeaseWorker) -> None:
    """As one that is still being loaded on a busy machine, which doesn't hear that it is to end."""
    helper = await eventually(lambda: worker.helper)
    assert helper is not None
    os.kill(helper.pid, signal.SIGSTOP)


async def is_killed(worker: LeaseWorker) -> None:
    helper = await eventually(lambda: worker.helper)
    assert helper is not None
    helper.kill()


async def was_killed(worker: LeaseWorker) -> None:
    helper = await eventually(lambda: worker.helper)
    assert helper is not None
    helper.kill()
    await eventually(lambda: worker.helper is not helper)


async def hasnt_helped_yet(_worker: LeaseWorker) -> None:
    """Its helper is being loaded."""


@pytest.mark.parametrize("meets", [hangs, is_killed, was_killed, hasnt_helped_yet])
def test_a_worker_leaves_no_helper_whatever_it_meets(
    meets: Callable[[LeaseWorker], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Neither the process, nor what asyncio says of one that wasn't waited for.

    With Valkey absent nothing else takes time at the end, in which a process could just end.
    """
    monkeypatch.setattr("jangada_queue.leases.keeping.GOODBYE", 0.01)

    async def work() -> None:
        async with worker_of(f"unix://{tmp_path / 'absent'}") as worker:
            await meets(worker)

    before = children()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(5):
            asyncio.run(work())
            gc.collect()
    assert [str(each.message) for each in warned] == []
    assert children() == before


def children() -> set[str]:
    """The ids of this process's, those among them that ended and weren't waited for."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


BABBLING = "#!/bin/sh\necho nonsense\ncat >/dev/null\n"


@pytest.mark.anyio
@pytest.mark.parametrize(("program", "trouble"), [("", "started: "), (BABBLING, "understood: ")])
async def test_a_helper_that_cant_be_used_is_tried_again(
    *,
    program: str,
    trouble: str,
    valkey_server: EmbeddedValkey,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As where the system has no process left to give, or one says what isn't of ours."""
    path = tmp_path / "helper"
    if program:
        path.write_text(program)
        path.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(path))
    async with asyncio.timeout(60), worker_of(valkey_server.url) as worker:
        await eventually(lambda: f"the helper process can't be {trouble}" in caplog.text)
        assert not worker.is_renewing
        monkeypatch.undo()
        await eventually(lambda: worker.is_renewing)
