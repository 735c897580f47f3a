"""Workers as Valkey knows them: what each says about itself, and the flag to drain a pod.

All of it is for dispatchers, operators and people to look at. Whether a worker lives is
PostgreSQL's to say where there is one; a report that is older than `STALE` counts for nothing.
"""

import secrets
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

import msgspec

from jangada_queue.client import QueueClient
from jangada_queue.connection import Argument, as_text, command, run, run_each, within
from jangada_queue.keys import PROTOCOL
from jangada_queue.scripts import script

STALE: Final = timedelta(seconds=10)
"""How old a report may be that counts."""

FORGET_AFTER: Final = timedelta(hours=1)


class RunningWork(msgspec.Struct, frozen=True):
    """A message's key, what it is, and since when it runs (seconds, by the worker's own count)."""

    key: str
    kind: str
    seconds: float


class WorkerReport(msgspec.Struct, frozen=True):
    """One worker process. `pod` is shared by all processes that are drained together.

    `claiming` counts claims under way and messages that are held but not running yet; `drain` is
    the flag that the process had seen when it said so, or empty.
    """

    worker: str
    pod: str
    host: str
    pid: int
    version: str
    queues: list[str]
    kinds: list[str]
    slots: int
    running: list[RunningWork] = []
    claiming: int = 0
    drain: str = ""
    protocol: str = str(PROTOCOL)

    @property
    def busy(self) -> int:
        return len(self.running)

    @property
    def is_draining(self) -> bool:
        return self.drain != ""


def registry(client: QueueClient) -> str:
    """The key of the set of all queues that were ever used."""
    return f"{client.prefix}:queues"


async def report(
    client: QueueClient, pod: str, reports: Sequence[WorkerReport], *, queues: Iterable[str] = ()
) -> str:
    """Say how the pod's workers are; answers the flag of a queue that asks it to drain, or ''.

    `queues` are looked at even where no worker of the pod serves them yet.

    Who says in its next report that it has seen this flag, holds nothing and runs nothing, is
    empty, and stays so while the flag stands.
    """
    served = sorted({*queues, *(queue for each in reports for queue in each.queues)})
    seen = ""
    async with within(client.deadline):
        for queue in served:
            arguments = [
                part
                for each in reports
                if queue in each.queues
                for part in (each.worker, msgspec.json.encode(each))
            ]
            base = client.keys(queue).base
            flag = await run(client.redis, script("beat"), base, [pod, *arguments])
            seen = seen or ("" if flag is None else as_text(flag))
        await remember(client, served)
    return seen


async def remember(client: QueueClient, queues: Sequence[str]) -> None:
    """Have `known_queues` list them; also on a server that is full."""
    if queues:
        await run(client.redis, script("remember"), registry(client), queues)


async def leave(client: QueueClient, queues: Iterable[str], workers: Sequence[str]) -> None:
    """Forget workers that have ended. What one of them still holds is left to its leases."""
    async with within(client.deadline):
        for queue in queues:
            await run(client.redis, script("leave"), client.keys(queue).base, workers)


async def prune(
    client: QueueClient, queue: str, silence: timedelta, *, forget_after: timedelta = FORGET_AFTER
) -> int:
    """Delete consumers that were silent for so long and hold nothing.

    What a worker said last is kept for longer: it may be cut off from Valkey, and still run work.
    Answers how many workers were forgotten.
    """
    arguments = [int(each.total_seconds() * 1000) for each in (silence, forget_after)]
    return int(await client.run(queue, "prune", arguments))


async def flag_drain(
    client: QueueClient, queues: Iterable[str], pod: str, ttl: timedelta, *, flag: str = ""
) -> str:
    """Ask a pod to claim nothing for `ttl`; whoever asks renews it, and gone they stop asking.

    Every process of the pod obeys, also one that registers later. Answers the flag: give it again
    to renew it, because processes say which flag they have seen.
    """
    token = flag.partition(":")[0] or secrets.token_hex(8)
    milliseconds = int(ttl.total_seconds() * 1000)
    standing = ""
    for queue in queues:
        arguments: list[Argument] = [pod, token, milliseconds, standing]
        standing = as_text(await client.run(queue, "drain", arguments))
    return standing


async def unflag_drain(client: QueueClient, queues: Iterable[str], pod: str) -> None:
    """The pod claims again at once."""
    async with within(client.deadline):
        for queue in queues:
            await command(client.redis, "DEL", client.keys(queue).drain(pod))


async def is_flagged(client: QueueClient, queues: Iterable[str], pod: str) -> bool:
    """Whether any of its queues asks the pod to drain."""
    keys = [client.keys(queue).drain(pod) for queue in queues]
    async with within(client.deadline):
        return int(await command(client.redis, "EXISTS", *keys)) > 0


async def is_empty(
    client: QueueClient,
    queues: Sequence[str],
    pod: str,
    *,
    alive_for: timedelta = FORGET_AFTER,
) -> bool:
    """Whether a flagged pod provably runs and holds nothing, in any of its processes.

    It stays so while the flag stands. False within 3 s after the flag was set, where a process
    hasn't spoken since it saw the flag, and for `alive_for` after one fell silent: give less where
    it is known that no process of the pod is older. What a dead one held is left to its leases.
    """
    async with within(client.deadline):
        bases = [client.keys(queue).base for queue in queues]
        arguments: list[Argument] = [pod, int(alive_for.total_seconds() * 1000)]
        answers = await run_each(client.redis, script("empty"), bases, arguments)
    return bool(answers) and all(answer == 1 for answer in answers)


async def known_queues(client: QueueClient) -> list[str]:
    """Every queue that a worker ever served or a dispatcher ever wrote about."""
    async with within(client.deadline):
        names = await command(client.redis, "SMEMBERS", registry(client))
    return sorted(as_text(name) for name in names)
