"""A server that is there and takes no commands for now is as good as absent: it is waited for."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from jangada.local.valkey import EmbeddedValkey
from jangada.testing import eventually
from jangada_queue.client import QueueClient
from jangada_queue.connection import command, within
from jangada_queue.errors import QueueUnavailable
from jangada_queue.messages import Offer
from jangada_queue.signals import tell

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[QueueClient]:
    async with Redis.from_url(valkey_url) as redis:
        yield QueueClient(redis)


type Refusing = Callable[[Redis], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def configured(redis: Redis, name: str, value: str) -> AsyncIterator[None]:
    (before,) = (await redis.config_get(name)).values()
    await redis.config_set(name, value)
    try:
        yield
    finally:
        await redis.config_set(name, str(before))


def without_replicas(redis: Redis) -> AbstractAsyncContextManager[None]:
    return configured(redis, "min-replicas-to-write", "1")


def full(redis: Redis) -> AbstractAsyncContextManager[None]:
    return configured(redis, "maxmemory", "1")


@asynccontextmanager
async def busy(redis: Redis) -> AsyncIterator[None]:
    """It runs somebody's script without end."""
    async with configured(redis, "lua-time-limit", "1"):
        running = asyncio.create_task(command(redis, "EVAL", "while true do end", 0))
        try:
            await eventually(lambda: refuses(redis))
            yield
        finally:
            await command(redis, "SCRIPT", "KILL")
            with pytest.raises(ResponseError):
                await running


async def refuses(redis: Redis) -> bool:
    try:
        await redis.ping()
    except ResponseError:
        return True
    return False


@pytest.mark.parametrize(
    ("refusing", "word"), [(without_replicas, "NOREPLICAS"), (full, "OOM"), (busy, "BUSY")]
)
async def test_a_refusal_is_an_absence(client: QueueClient, refusing: Refusing, word: str) -> None:
    """And says in the server's own word what is the matter."""
    await client.publish("q", [Offer("a", "known", b"")], limit=9)
    async with refusing(client.redis):
        with pytest.raises(QueueUnavailable, match=f"refuses commands for now .{word}"):
            await client.claim("q", "w", 9, pod="p")
        with pytest.raises(QueueUnavailable, match=word):
            await tell(client, wake=["q", "r"])
    assert [claim.key for claim in (await client.claim("q", "w", 9, pod="p")).claims] == ["a"]


async def test_a_server_that_cannot_save_is_absent(servers_folder: Path) -> None:
    with EmbeddedValkey(servers_folder / "unsaved", durable=False) as server:
        async with Redis.from_url(server.url) as redis:
            client = QueueClient(redis)
            await redis.config_set("save", "3600 1")
            shutil.rmtree(server.data)
            await redis.bgsave()
            await eventually(lambda: refuses(redis))
            with pytest.raises(QueueUnavailable, match="MISCONF"):
                await client.claim("q", "w", 9, pod="p")


async def test_our_own_mistake_is_no_absence(client: QueueClient) -> None:
    await command(client.redis, "SET", "text", "of ours")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        async with within(client.deadline):
            await command(client.redis, "LPUSH", "text", "more")
