"""The protocol's steps as calls: what dispatchers, workers and enqueuers do with a queue.

Every call has a deadline and raises `QueueUnavailable` when Valkey is absent; every one may be
repeated.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis

from jangada_queue.connection import Argument, as_bytes, as_text, command, run, within
from jangada_queue.keys import PROTOCOL, QueueKeys
from jangada_queue.messages import Claim, Claims, Depth, Offer, OnOffer, Published
from jangada_queue.scripts import script

MOST_EXPIRED: Final = 1000
"""How many expired leases one call deals with."""

SHORTEST_BLOCK: Final = 0.001
"""Zero seconds would mean for ever."""

SHARE_OF_TIMEOUT: Final = 0.5
"""What a blocking command may take of its connection's timeout; the rest is the answer's way."""


class QueueClient:
    """All queues of one server under one prefix. Holds nothing but the client it was given."""

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str = "jangada",
        deadline: timedelta = timedelta(seconds=2),
    ) -> None:
        self.redis = redis
        self.prefix = prefix
        self.deadline = deadline

    def keys(self, queue: str) -> QueueKeys:
        return QueueKeys.of(self.prefix, queue)

    async def run(self, queue: str, name: str, arguments: Iterable[Argument] = ()) -> Any:  # noqa: ANN401 - as the script answers
        """Run a step of the protocol on a queue within the deadline."""
        async with within(self.deadline):
            return await run(self.redis, script(name), self.keys(queue).base, arguments)

    async def on_offer(self, queue: str, *, with_messages: bool = False) -> OnOffer:
        """What is published and not yet acknowledged, and where the last round ended."""
        waiting, turn, window, messages = await self.run(queue, "on_offer", [int(with_messages)])
        return OnOffer(
            waiting=waiting,
            turn=as_text(turn),
            keys=frozenset(as_text(key) for key in window),
            messages=tuple(
                Offer(as_text(key), as_text(kind), as_bytes(body)) for key, kind, body in messages
            ),
        )

    async def publish(
        self, queue: str, offers: Iterable[Offer], *, limit: int, turn: str = ""
    ) -> Published:
        """Publish offers, in order, until `limit` messages wait. Known keys are skipped.

        When the queue is full the next claim that brings it down to half of `limit` wakes a
        dispatcher. `turn` is kept for the next round, whoever runs it; without one it stays.
        """
        arguments: list[Argument] = [limit, str(PROTOCOL), turn]
        for offer in offers:
            arguments += (offer.key, offer.kind, offer.body)
        return Published(*await self.run(queue, "publish", arguments))

    async def offer(self, queue: str, offer: Offer) -> bool:
        """Publish where nothing waits, or has to; else a dispatcher is woken. Whether it was.

        Without a choice to make no dispatcher is needed. One that is offered already is left alone.
        """
        arguments: list[Argument] = [str(PROTOCOL), offer.key, offer.kind, offer.body]
        return bool(await self.run(queue, "offer", arguments))

    async def wait_for_work(self, queues: Sequence[str], for_: timedelta) -> str | None:
        """Block until a message waits in one of the queues: its name; its wake token is ours.

        Or none, after `for_` at most; sooner where the connection's timeout is short. Earlier
        queues go first, so a caller that serves several rotates them.
        """
        return await self._pop_token({self.keys(queue).wake: queue for queue in queues}, for_)

    async def wait_for_dispatch(self, queues: Sequence[str], for_: timedelta) -> str | None:
        """Block until a dispatcher is wanted for one of the queues: its name."""
        names = {self.keys(queue).dispatch: queue for queue in queues}
        return await self._pop_token(names, for_)

    async def _pop_token(self, names: dict[str, str], for_: timedelta) -> str | None:
        async with within(self.deadline + for_):
            popped = await command(self.redis, "BLPOP", *names, self._bearable(for_))
        return None if popped is None else names[as_text(popped[0])]

    def _bearable(self, for_: timedelta) -> float:
        """So many seconds, or what a connection waits for an answer without taking it for lost."""
        seconds = max(for_.total_seconds(), SHORTEST_BLOCK)
        timeout: float | None = self.redis.connection_pool.connection_kwargs.get("socket_timeout")
        return seconds if timeout is None else min(seconds, timeout * SHARE_OF_TIMEOUT)

    async def claim(
        self,
        queue: str,
        worker: str,
        count: int,
        *,
        pod: str,
        kinds: Collection[str] = (),
        has_token: bool = False,
    ) -> Claims:
        """Take at most `count` messages under a lease; none while the pod is draining.

        Messages of kinds that are not among `kinds` (if any are given) are parked until a worker
        asks that knows them. `has_token`: a wake token was taken for this claim; it is given back
        when the claim is refused.
        """
        arguments: list[Argument] = [worker, pod, count, int(has_token), PROTOCOL.major, *kinds]
        reply = await self.run(queue, "claim", arguments)
        claims = tuple(
            Claim(queue, as_text(id_), as_text(key), as_text(kind), as_bytes(body), int(losses))
            for id_, key, kind, body, losses in reply[2:]
        )
        return Claims(claims, waiting=reply[1], is_draining=reply[0] == 1)

    async def ack(self, queue: str, claims: Collection[Claim]) -> frozenset[str]:
        """Forget claimed messages; answers the ids of those whose leases had been lost before."""
        arguments = [part for claim in claims for part in (claim.id, claim.key)]
        _, *lost = await self.run(queue, "ack", arguments)
        return frozenset(map(as_text, lost))

    async def release(self, queue: str, claims: Iterable[Claim]) -> int:
        """Hand unstarted messages on to other workers at once; answers how many were still ours."""
        return await self.release_ids(queue, [claim.id for claim in claims])

    async def release_ids(self, queue: str, ids: Collection[str]) -> int:
        """`release` for messages of which only the ids are known."""
        return int(await self.run(queue, "release", ids))

    async def renew(self, queue: str, worker: str, claims: Sequence[Claim]) -> tuple[Claim, ...]:
        """Begin the leases of claimed messages anew; answers those that are still the worker's."""
        if not claims:
            return ()
        kept = await self.run(queue, "renew", [worker, *(claim.id for claim in claims)])
        ids = {as_text(id_) for id_ in kept}
        return tuple(claim for claim in claims if claim.id in ids)

    async def expire(self, queue: str, lease: timedelta) -> list[str]:
        """Forget messages claimed longer ago than `lease` by Valkey's clock; answers their keys."""
        arguments = [int(lease.total_seconds() * 1000), MOST_EXPIRED]
        return [as_text(key) for key in await self.run(queue, "expire", arguments)]

    async def rebase(self, queue: str) -> int:
        """Begin all leases now, because the server's clock was set back; answers how many."""
        return int(await self.run(queue, "rebase"))

    async def clear_window(self, queue: str) -> int:
        """Forget which messages are out, if none is; answers how many keys that were."""
        return int(await self.run(queue, "clear"))

    async def disown(self, queue: str, kinds: Iterable[str]) -> int:
        """Forget parked messages of all other kinds, where PostgreSQL has them; answers how many.

        For a dispatcher that knows what the living workers know: it publishes them again when one
        knows them. Parked ones keep single jobs from being offered at once.
        """
        tags = [f"{PROTOCOL.major}:{kind}" for kind in kinds]
        return int(await self.run(queue, "disown", tags))

    async def depth(self, queue: str) -> Depth:
        return Depth(*await self.run(queue, "depth"))
