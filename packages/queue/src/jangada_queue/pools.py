"""Pools of processes on one machine, for people to look at: what `kubectl get wp` is elsewhere."""

from datetime import timedelta
from typing import Final

import msgspec

from jangada_queue.client import QueueClient
from jangada_queue.connection import as_bytes, command, within

LIFETIME: Final = timedelta(seconds=10)
"""A pool that has said nothing for so long is none any more."""


class PoolStatus(msgspec.Struct, frozen=True):
    """One pool, as it was a moment ago. `why` and `message` are those of its last decision."""

    name: str
    queues: list[str]
    replicas: int
    desired: int
    least: int
    most: int
    draining: int
    slots: int
    busy: int
    backlog: int
    oldest_wait_seconds: float
    why: str
    message: str


def _registry(client: QueueClient) -> str:
    return f"{client.prefix}:pools"


def _key(client: QueueClient, name: str) -> str:
    return f"{client.prefix}:pool:{name}"


async def write_pool(client: QueueClient, status: PoolStatus) -> None:
    """Say how a pool is; to be repeated within `LIFETIME`."""
    seconds = int(LIFETIME.total_seconds())
    async with within(client.deadline):
        payload = msgspec.json.encode(status)
        await command(client.redis, "SET", _key(client, status.name), payload, "EX", seconds)
        await command(client.redis, "SADD", _registry(client), status.name)


async def read_pools(client: QueueClient) -> list[PoolStatus]:
    """All pools that said something lately, by name."""
    async with within(client.deadline):
        names = sorted(await command(client.redis, "SMEMBERS", _registry(client)))
        if not names:
            return []
        keys = [_key(client, as_bytes(name).decode()) for name in names]
        found = await command(client.redis, "MGET", *keys)
    return [msgspec.json.decode(each, type=PoolStatus) for each in found if each is not None]
