"""The commands that the protocol's page names suffice, and no others are needed."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis

from jangada_queue import signals, statistics, workers
from jangada_queue.client import QueueClient
from jangada_queue.messages import Offer
from jangada_queue.server import check_server
from jangada_queue.statistics import Upstream
from jangada_queue.workers import WorkerReport

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[3] / "docs" / "queue-protocol.md"
LEASE = timedelta(0)


def named_commands() -> list[str]:
    (paragraph,) = re.findall(
        r"Commands that an ACL user needs:.*?on `jangada:", PAGE.read_text(), re.DOTALL
    )
    return [f"+{name}" for name in re.findall(r"\b[A-Z]{3,}\b", paragraph) if name != "ACL"]


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[QueueClient]:
    """A client of a user who may use those commands and no others, on our keys alone."""
    rules = ["on", ">secret", "~jangada:*", "&jangada:*", "-@all", *named_commands()]
    async with Redis.from_url(valkey_url) as admin:
        await admin.execute_command("ACL", "SETUSER", "worker", "reset", *rules)
        options = admin.connection_pool.connection_kwargs
        async with Redis(
            unix_socket_path=options["path"], username="worker", password="secret"
        ) as redis:
            yield QueueClient(redis)
        await admin.execute_command("ACL", "DELUSER", "worker")


async def test_the_named_commands_suffice(client: QueueClient) -> None:
    await check_server(client)
    report = WorkerReport("w", "p", "h", 1, "0", ["q"], ["known"], 1)
    await workers.report(client, "p", [report])
    await workers.flag_drain(client, ["q"], "p", timedelta(seconds=9))
    await workers.is_flagged(client, ["q"], "p")
    await client.claim("q", "w", 1, pod="p", has_token=True)
    await workers.unflag_drain(client, ["q"], "p")
    offers = [Offer(key, kind, b"") for key, kind in [("a", "known"), ("b", "new"), ("c", "known")]]
    await client.publish("q", offers, limit=2)
    await client.offer("q", Offer("d", "known", b""))
    await client.offer("idle", Offer("d", "known", b""))
    assert await client.wait_for_work(["q"], timedelta(seconds=9)) == "q"
    taken = (await client.claim("q", "w", 3, pod="p", kinds=["known"])).claims
    await client.renew("q", "w", taken)
    await client.release("q", taken)
    taken = (await client.claim("q", "w", 3, pod="p", kinds=["known", "new"])).claims
    assert len(taken) == 2
    await client.ack("q", taken[:1])
    await client.expire("q", LEASE)
    await client.clear_window("q")
    await client.disown("q", ["known"])
    await client.depth("q")
    await signals.tell(client, wake=["q"], cancel=["job"])
    await client.wait_for_dispatch(["q"], timedelta(seconds=9))
    await signals.write_progress(client, "job", signals.Progress(1, 1, 1))
    await signals.read_progress(client, ["job"])
    await statistics.write_upstream(client, "q", Upstream(0, 0, 0, 0, 0))
    await statistics.queue_stats(client, await workers.known_queues(client))
    await workers.prune(client, "q", timedelta(0))
    await workers.leave(client, ["q"], ["w"])


async def test_a_lost_group_is_within_the_named_commands(client: QueueClient) -> None:
    await client.publish("q", [Offer("a", "known", b"")], limit=2)
    assert len((await client.claim("q", "w", 1, pod="p")).claims) == 1


async def test_nudges_are_within_the_named_commands(client: QueueClient) -> None:
    pubsub = client.redis.pubsub()
    await pubsub.subscribe("jangada:cancel")
    await pubsub.get_message(timeout=9)
    await signals.nudge_cancel(client, ["job"])
    heard = await pubsub.get_message(timeout=9)
    assert heard is not None
    assert heard["data"] == b"job"
    await pubsub.unsubscribe()
    await pubsub.aclose()
