"""Small things beside the queues: a nudge to cancel what runs, and the progress of it.

Both are only for speed and comfort. A nudge that is lost arrives with the worker's next beat;
progress that is lost is written again within the second, and its last value reaches PostgreSQL with
the end of the job.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Final

import msgspec

from jangada_queue.client import QueueClient
from jangada_queue.connection import as_bytes, as_text, command, run_each, within
from jangada_queue.messages import Offer
from jangada_queue.scripts import script

PROGRESS_LIFETIME: Final = timedelta(hours=1)
"""How long progress is kept after its last change."""

LISTEN_INTERVAL: Final = timedelta(seconds=1)


class Progress(msgspec.Struct, frozen=True):
    """How far a start (`attempt`) of a piece of work is. `total` is None while it isn't known.

    `changes` grows with each write of this attempt, so that readers can tell newer from older.
    """

    attempt: int
    changes: int
    done: int
    total: int | None = None


def _progress_key(client: QueueClient, work: str) -> str:
    return f"{client.prefix}:progress:{work}"


def _cancel_channel(client: QueueClient) -> str:
    return f"{client.prefix}:cancel"


async def write_progress(client: QueueClient, work: str, progress: Progress) -> None:
    async with within(client.deadline):
        await command(
            client.redis,
            "SET",
            _progress_key(client, work),
            msgspec.json.encode(progress),
            "EX",
            int(PROGRESS_LIFETIME.total_seconds()),
        )


async def read_progress(client: QueueClient, works: Sequence[str]) -> dict[str, Progress]:
    """The progress of those that have written any, in one round trip."""
    if not works:
        return {}
    async with within(client.deadline):
        values = await command(
            client.redis, "MGET", *(_progress_key(client, work) for work in works)
        )
    return {
        work: msgspec.json.decode(as_bytes(value), type=Progress)
        for work, value in zip(works, values, strict=True)
        if value is not None
    }


async def nudge_cancel(client: QueueClient, works: Collection[str]) -> None:
    """Tell every worker that these are to be cancelled, now."""
    await tell(client, cancel=works)


async def tell(
    client: QueueClient,
    *,
    wake: Collection[str] = (),
    cancel: Collection[str] = (),
    offers: Mapping[str, Offer] = MappingProxyType({}),
) -> None:
    """Wake a dispatcher for queues and nudge workers to cancel, as after a commit.

    `offers` has a message for each of some queues that aren't woken: see `QueueClient.offer`.
    """
    async with within(client.deadline):
        for work in cancel:
            await command(client.redis, "PUBLISH", _cancel_channel(client), work)
        for queue, offer in offers.items():
            await client.offer(queue, offer)
        await run_each(client.redis, script("wake"), [client.keys(queue).base for queue in wake])


async def cancel_nudges(client: QueueClient) -> AsyncIterator[str]:
    """The nudges as they come; raises `QueueUnavailable` when the connection is lost."""
    pubsub = client.redis.pubsub(ignore_subscribe_messages=True)
    try:
        async with within(client.deadline):
            await pubsub.subscribe(_cancel_channel(client))
        while True:
            async with within(client.deadline + LISTEN_INTERVAL):
                message = await pubsub.get_message(timeout=LISTEN_INTERVAL.total_seconds())
            if message is not None:
                yield as_text(message["data"])
    finally:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
