"""Whether a server can be trusted with queues, and its time."""

from datetime import UTC, datetime

from jangada_queue.client import QueueClient
from jangada_queue.connection import command, within
from jangada_queue.errors import UnsafeServer


async def server_time(client: QueueClient) -> datetime:
    """What the server's clock shows."""
    async with within(client.deadline):
        seconds, microseconds = await command(client.redis, "TIME")
    return datetime.fromtimestamp(int(seconds) + int(microseconds) / 1_000_000, UTC)


async def check_writable(client: QueueClient) -> None:
    """Raise `QueueUnavailable` where the server is absent, or takes no writes for now.

    Nothing is written: a key that is never there is to be set if it is. To PING a full server, a
    replica or a primary that lacks replicas answers as if nothing were wrong.
    """
    async with within(client.deadline):
        await command(client.redis, "SET", f"{client.prefix}:never", "", "XX")


async def check_server(client: QueueClient) -> None:
    """Raise `UnsafeServer` for a server that evicts keys when its memory is full.

    What it evicts PostgreSQL would publish again, but the figures that scaling depends on would be
    wrong meanwhile. `INFO` is asked, not `CONFIG`, which managed servers refuse.
    """
    async with within(client.deadline):
        memory = await command(client.redis, "INFO", "memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise UnsafeServer(f"Valkey evicts keys (maxmemory-policy {policy}); set it to noeviction.")
