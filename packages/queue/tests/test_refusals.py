"""A server that is there and takes no commands for now is as good as absent: it is waited for."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from jangada.local.valkey import EmbeddedValkey
from jangada.testing import eventually
from jangada_queue.client import QueueClient
from jangada_queue.connection import command, within
from jangada_queue.errors import QueueRefused, QueueUnavailable
from jangada_queue.keys import PROTOCOL
from jangada_queue.leases.client import kick
from jangada_queue.messages import Offer
from jangada_queue.server import check_writable
from jangada_queue.signals import tell
from jangada_queue.statistics import queue_stats
from jangada_queue.workers import WorkerReport, flag_drain, known_queues, report

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


@pytest.mark.parametrize(("refusing", "word"), [(without_replicas, "NOREPLICAS"), (busy, "BUSY")])
async def test_a_refusal_is_an_absence(client: QueueClient, refusing: Refusing, word: str) -> None:
    """And says in the server's own word what is the matter."""
    await client.publish("q", [Offer("a", "known", b"")], limit=9)
    async with refusing(client.redis):
        with pytest.raises(QueueUnavailable, match=f"refuses commands for now .{word}"):
            await client.claim("q", "w", 9, pod="p")
        with pytest.raises(QueueUnavailable, match=word):
            await tell(client, wake=["q", "r"])
    assert [claim.key for claim in (await client.claim("q", "w", 9, pod="p")).claims] == ["a"]


@asynccontextmanager
async def a_replica(redis: Redis) -> AsyncIterator[None]:
    """It took somebody else for its primary, who isn't there."""
    await command(redis, "REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        await command(redis, "REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize(
    ("refusing", "word"),
    [(without_replicas, "NOREPLICAS"), (full, "OOM"), (a_replica, "READONLY")],
)
async def test_whether_it_takes_writes_is_found_out_by_none(
    client: QueueClient, refusing: Refusing, word: str
) -> None:
    await check_writable(client)
    async with refusing(client.redis):
        assert await command(client.redis, "PING")
        with pytest.raises(QueueUnavailable, match=f"refuses commands for now .{word}"):
            await check_writable(client)
    await check_writable(client)
    assert await client.redis.dbsize() == 0


async def test_a_full_server_takes_no_more_and_can_be_emptied(client: QueueClient) -> None:
    """Also by a worker that it doesn't know: claims are what makes room."""
    await kick(client, "q", Offer("a", "known", b""))
    async with full(client.redis):
        with pytest.raises(QueueUnavailable, match="OOM"):
            await kick(client, "q", Offer("b", "known", b""))
        with pytest.raises(QueueUnavailable, match="OOM"):
            await client.publish("jobs", [Offer("c", "known", b"")], limit=9)
        (claim,) = (await client.claim("q", "w", 9, pod="p")).claims
        me = WorkerReport("w", "p", "host", 1, "1.0", ["q"], ["known"], 1)
        assert await report(client, "p", [me]) == ""
        assert await flag_drain(client, ["q"], "p", client.deadline)
        await tell(client, wake=["jobs"])
        assert await client.ack("q", [claim]) == frozenset()
    assert await known_queues(client) == ["q"]
    assert await client.redis.xlen(client.keys("q").stream) == 0


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


async def test_what_a_server_will_not_do_is_told_in_its_words(client: QueueClient) -> None:
    """Something of somebody else's is in our place: it ends nobody who has jobs running."""
    await command(client.redis, "SET", client.keys("q").stream, "canary")
    expected = "^Valkey refuses a command: WRONGTYPE Operation against a key"
    with pytest.raises(QueueUnavailable, match=expected) as claiming:
        await client.claim("q", "w", 9, pod="canary")
    with pytest.raises(QueueUnavailable, match=expected) as looking:
        await queue_stats(client, ["canary", "q"])
    assert "canary" not in f"{claiming.value} {looking.value}"


async def test_the_arguments_of_an_unknown_command_are_not_told(client: QueueClient) -> None:
    with pytest.raises(QueueRefused, match=r"^Valkey refuses a command: .*'NONSENSE'$") as refused:
        async with within(client.deadline):
            await command(client.redis, "NONSENSE", "canary")
    assert "canary" not in str(refused.value)


async def test_who_waits_at_a_primary_that_becomes_a_replica_tries_again(
    servers_folder: Path,
) -> None:
    """A failover; the server answers all who block there."""
    with EmbeddedValkey(servers_folder / "demoted", durable=False) as server:
        async with Redis.from_url(server.url) as redis, Redis.from_url(server.url) as other:
            client = QueueClient(redis)
            waiting = asyncio.create_task(client.wait_for_work(["q"], timedelta(seconds=60)))
            await eventually(lambda: is_blocking(other))
            await other.replicaof("127.0.0.1", "1")
            with pytest.raises(QueueUnavailable, match="UNBLOCKED"):
                await waiting


async def is_blocking(redis: Redis) -> bool:
    clients: int = (await redis.info("clients"))["blocked_clients"]
    return clients > 0


async def test_a_key_that_is_no_text_hurts_nobody(client: QueueClient) -> None:
    parts = ("v", str(PROTOCOL), "key", b"\xff", "kind", "known", "body", b"")
    await command(client.redis, "XADD", client.keys("q").stream, "*", *parts)
    (claim,) = (await client.claim("q", "w", 9, pod="p")).claims
    assert claim.key == "\ufffd"
    assert await client.ack("q", [claim]) == frozenset()
    assert await client.redis.xlen(client.keys("q").stream) == 0
