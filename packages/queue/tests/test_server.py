"""A server that evicts keys is not to be trusted with queues."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from jangada_queue.client import QueueClient
from jangada_queue.errors import UnsafeServer
from jangada_queue.server import check_server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[QueueClient]:
    async with Redis.from_url(valkey_url) as redis:
        yield QueueClient(redis)


async def test_a_server_that_keeps_everything_is_accepted(client: QueueClient) -> None:
    assert (await client.redis.config_get("maxmemory-policy")) == {"maxmemory-policy": "noeviction"}
    await check_server(client)


async def test_a_server_that_evicts_is_refused(client: QueueClient) -> None:
    await client.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnsafeServer, match="allkeys-lru"):
            await check_server(client)
    finally:
        await client.redis.config_set("maxmemory-policy", "noeviction")
