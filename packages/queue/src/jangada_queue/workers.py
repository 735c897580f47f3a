"""Workers as Valkey knows them: what each says about itself, and the flag to drain a pod.

All of it is for dispatchers, operators and people to look at. Whether a worker lives is
PostgreSQL's to say where there is one; a report that is older than `STALE` counts for nothing.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

import msgspec

from jangada_queue.client import QueueClient
from jangada_queue.connection import as_text, command, run, within
from jangada_queue.keys import PROTOCOL
from jangada_queue.scripts import script

STALE: Final = timedelta(seconds=10)


class RunningWork(msgspec.Struct, frozen=True):
    """A message's key, what it is, and since when it runs (seconds, by the worker's own count)."""

    key: str
    kind: str
    seconds: float


class WorkerReport(msgspec.Struct, frozen=True):
    """One worker process. `pod` is shared by all processes that are drained together."""

    worker: str
    pod: str
    host: str
    pid: int
    version: str
    queues: list[str]
    kinds: list[str]
    slots: int
    running: list[RunningWork] = []
    is_draining: bool = False
    protocol: str = str(PROTOCOL)

    @property
    def busy(self) -> int:
        return len(self.running)


def registry(client: QueueClient) -> str:
    """The key of the set of all queues that were ever used."""
    return f"{client.prefix}:queues"


async def report(client: QueueClient, pod: str, reports: Sequence[WorkerReport]) -> bool:
    """Say how the pod's workers are; answers whether any of its queues asks it to drain."""
    queues = sorted({queue for each in reports for queue in each.queues})
    is_draining = False
    async with within(client.deadline):
        for queue in queues:
            keys = client.keys(queue)
            arguments = [
                part
                for each in reports
                if queue in each.queues
                for part in (each.worker, msgspec.json.encode(each))
            ]
            flag = await run(
                client.redis,
                script("beat"),
                [keys.workers, keys.beats, keys.drain(pod)],
                arguments,
            )
            is_draining = is_draining or flag == 1
        if queues:
            await command(client.redis, "SADD", registry(client), *queues)
    return is_draining


async def leave(client: QueueClient, queues: Iterable[str], workers: Sequence[str]) -> None:
    """Forget workers that have ended. What one of them still holds is left to its leases."""
    async with within(client.deadline):
        for queue in queues:
            keys = client.keys(queue)
            await run(
                client.redis,
                script("leave"),
                [keys.stream, keys.workers, keys.beats],
                workers,
            )


async def prune(client: QueueClient, queue: str, silence: timedelta) -> int:
    """Forget workers and consumers that were silent for so long; answers how many workers."""
    keys = client.keys(queue)
    async with within(client.deadline):
        pruned = await run(
            client.redis,
            script("prune"),
            [keys.stream, keys.workers, keys.beats],
            [int(silence.total_seconds() * 1000)],
        )
    return int(pruned)


async def flag_drain(client: QueueClient, queues: Iterable[str], pod: str, ttl: timedelta) -> None:
    """Ask a pod to claim nothing for `ttl`; whoever asks renews it, and gone they stop asking."""
    async with within(client.deadline):
        for queue in queues:
            key = client.keys(queue).drain(pod)
            milliseconds = int(ttl.total_seconds() * 1000)
            await command(client.redis, "SET", key, "1", "PX", milliseconds)


async def unflag_drain(client: QueueClient, queues: Iterable[str], pod: str) -> None:
    async with within(client.deadline):
        for queue in queues:
            await command(client.redis, "DEL", client.keys(queue).drain(pod))


async def is_flagged(client: QueueClient, queues: Iterable[str], pod: str) -> bool:
    """Whether any of its queues asks the pod to drain."""
    keys = [client.keys(queue).drain(pod) for queue in queues]
    async with within(client.deadline):
        return int(await command(client.redis, "EXISTS", *keys)) > 0


async def known_queues(client: QueueClient) -> list[str]:
    """Every queue that a worker ever served or a dispatcher ever wrote about."""
    async with within(client.deadline):
        names = await command(client.redis, "SMEMBERS", registry(client))
    return sorted(as_text(name) for name in names)
