"""The steps of queues whose truth is Valkey, as calls.

As with `QueueClient`, every call has a deadline and raises `QueueUnavailable` when Valkey is
absent. All but `kick` may be repeated.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from jangada_queue.client import QueueClient
from jangada_queue.connection import Argument, as_text, within
from jangada_queue.errors import UnsafeServer
from jangada_queue.keys import PROTOCOL
from jangada_queue.messages import Claim, Offer
from jangada_queue.workers import remember

AT_ONCE: Final = 1000
"""How many messages one sweep deals with, of each sort."""


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep did and saw. `until_due` is None when nothing is delayed."""

    at: datetime
    until_due: timedelta | None
    due: int
    returned: int
    buried: int

    @classmethod
    def of(cls, reply: Sequence[int]) -> Self:
        at, wait, due, returned, buried = reply
        return cls(
            at=datetime.fromtimestamp(at / 1000, UTC),
            until_due=None if wait < 0 else timedelta(milliseconds=wait),
            due=due,
            returned=returned,
            buried=buried,
        )


@dataclass(frozen=True, slots=True)
class Losses:
    """What became of messages whose leases ended without an acknowledgement."""

    returned: int
    delayed: int
    buried: int


async def serve(client: QueueClient, queues: Iterable[str]) -> None:
    """Say that Valkey is the truth of these queues.

    Raises `UnsafeServer` for one that PostgreSQL's dispatcher serves: it forgets messages whose
    leases end, because their rows are the truth.
    """
    for queue in queues:
        truth = as_text(await client.run(queue, "serve", ["valkey"]))
        if truth != "valkey":
            raise UnsafeServer(
                f"The queue {queue} belongs to jobs in {truth}; give this broker another "
                "queue_name, or another prefix."
            )
        async with within(client.deadline):
            await remember(client, [queue])


async def kick(
    client: QueueClient,
    queue: str,
    offer: Offer,
    *,
    delay: timedelta = timedelta(0),
    extra: Mapping[str, str] | None = None,
) -> None:
    """Enqueue a message, to be delivered once `delay` has passed by Valkey's clock.

    `offer.key` is the identity of this delivery. Not to be repeated after `QueueUnavailable`: the
    message may be in the queue.
    """
    arguments: list[Argument] = [str(PROTOCOL), _milliseconds(delay)]
    arguments += [offer.key, offer.kind, offer.body]
    for name, value in (extra or {}).items():
        arguments += (name, value)
    await client.run(queue, "kick", arguments)


async def renew_all(client: QueueClient, queue: str, worker: str) -> frozenset[str]:
    """Begin all leases of a worker anew; answers the ids of what it holds."""
    return frozenset(map(as_text, await client.run(queue, "renew", [worker])))


async def sweep(
    client: QueueClient, queue: str, *, lease: timedelta, most_losses: int, seen: datetime | None
) -> Sweep:
    """Publish what is due, and hand on what was claimed longer ago than `lease`.

    `seen` is the server's time at the caller's last look, None while the caller hasn't seen it for
    long enough to judge. Nothing is handed on when more than half a lease lies between the looks.
    """
    judged, last = (0, 0) if seen is None else (_milliseconds(lease), seen.timestamp() * 1000)
    arguments = [judged, int(last), most_losses, AT_ONCE]
    return Sweep.of(await client.run(queue, "sweep", arguments))


async def surrender(
    client: QueueClient,
    queue: str,
    worker: str,
    claims: Sequence[Claim] | None,
    *,
    most_losses: int,
    detail: str,
    delay: timedelta = timedelta(0),
) -> Losses:
    """End leases of a worker as lost: of these messages, or (None) of all that it holds."""
    if claims is not None and not claims:
        return Losses(0, 0, 0)
    ids = [] if claims is None else [claim.id for claim in claims]
    arguments: list[Argument] = [worker, most_losses, _milliseconds(delay), detail, *ids]
    return Losses(*await client.run(queue, "surrender", arguments))


async def bury(client: QueueClient, claim: Claim, detail: str) -> bool:
    """A held message that can't be read becomes a dead letter; whether it was still held."""
    return int(await client.run(claim.queue, "bury", [claim.id, detail])) == 1
