"""The protocol's steps as calls: what dispatchers, workers and enqueuers do with a queue.

Every call has a deadline and raises `QueueUnavailable` when Valkey is absent; every one may be
repeated.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Final, cast

from redis.asyncio import Redis

from jangada_queue.connection import Argument, as_bytes, as_text, command, run, within
from jangada_queue.keys import PROTOCOL, QueueKeys
from jangada_queue.messages import Claim, Claims, Depth, Offer, OnOffer, Published
from jangada_queue.scripts import script

MOST_EXPIRED: Final = 1000
"""How many expired leases one call deals with."""


SHORTEST_BLOCK: Final = 0.001
"""Zero seconds would mean for ever."""


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

    async def on_offer(self, queue: str, *, with_messages: bool = False) -> OnOffer:
        """What is published and not yet acknowledged, and where the last round ended."""
        keys = self.keys(queue)
        async with within(self.deadline):
            waiting, turn, window, messages = await run(
                self.redis,
                script("on_offer"),
                [keys.stream, keys.window, keys.turn],
                [int(with_messages)],
            )
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
        keys = self.keys(queue)
        arguments: list[Argument] = [limit, str(PROTOCOL), turn]
        for offer in offers:
            arguments += (offer.key, offer.kind, offer.body)
        async with within(self.deadline):
            published, waiting = await run(
                self.redis,
                script("publish"),
                [keys.stream, keys.window, keys.wake, keys.low, keys.counters, keys.turn],
                arguments,
            )
        return Published(published, waiting)

    async def wait_for_work(self, queues: Sequence[str], for_: timedelta) -> str | None:
        """Block until a message waits in one of the queues: its name; its wake token is ours.

        Earlier queues go first, so a caller that serves several rotates them.
        """
        return await self._pop_token({self.keys(queue).wake: queue for queue in queues}, for_)

    async def wait_for_dispatch(self, queues: Sequence[str], for_: timedelta) -> str | None:
        """Block until a dispatcher is wanted for one of the queues: its name."""
        names = {self.keys(queue).dispatch: queue for queue in queues}
        return await self._pop_token(names, for_)

    async def _pop_token(self, names: dict[str, str], for_: timedelta) -> str | None:
        seconds = max(for_.total_seconds(), SHORTEST_BLOCK)
        async with within(self.deadline + for_):
            popped = await command(self.redis, "BLPOP", *names, seconds)
        return None if popped is None else names[as_text(popped[0])]

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
        keys = self.keys(queue)
        async with within(self.deadline):
            reply = await run(
                self.redis,
                script("claim"),
                [
                    keys.stream,
                    keys.window,
                    keys.wake,
                    keys.low,
                    keys.dispatch,
                    keys.parked,
                    keys.counters,
                    keys.drain(pod),
                ],
                [worker, count, int(has_token), PROTOCOL.major, *kinds],
            )
        claims = tuple(
            Claim(queue, as_text(id_), as_text(key), as_text(kind), as_bytes(body))
            for id_, key, kind, body in reply[2:]
        )
        return Claims(claims, waiting=reply[1], is_draining=reply[0] == 1)

    async def ack(self, queue: str, claims: Iterable[Claim]) -> int:
        """Forget claimed messages; answers how many had not been forgotten before."""
        keys = self.keys(queue)
        arguments = [part for claim in claims for part in (claim.id, claim.key)]
        async with within(self.deadline):
            return cast(
                "int", await run(self.redis, script("ack"), [keys.stream, keys.window], arguments)
            )

    async def release(self, queue: str, claims: Iterable[Claim]) -> int:
        """Hand unstarted messages on to other workers at once; answers how many were still ours."""
        keys = self.keys(queue)
        async with within(self.deadline):
            return cast(
                "int",
                await run(
                    self.redis,
                    script("release"),
                    [keys.stream, keys.wake],
                    [claim.id for claim in claims],
                ),
            )

    async def renew(self, queue: str, worker: str, claims: Sequence[Claim]) -> tuple[Claim, ...]:
        """Begin the leases of claimed messages anew; answers those that are still the worker's."""
        keys = self.keys(queue)
        async with within(self.deadline):
            kept = await run(
                self.redis,
                script("renew"),
                [keys.stream],
                [worker, *(claim.id for claim in claims)],
            )
        ids = {as_text(id_) for id_ in kept}
        return tuple(claim for claim in claims if claim.id in ids)

    async def expire(self, queue: str, lease: timedelta) -> list[str]:
        """Forget messages claimed longer ago than `lease` by Valkey's clock; answers their keys."""
        keys = self.keys(queue)
        async with within(self.deadline):
            expired = await run(
                self.redis,
                script("expire"),
                [keys.stream, keys.window, keys.counters],
                [int(lease.total_seconds() * 1000), MOST_EXPIRED],
            )
        return [as_text(key) for key in expired]

    async def clear_window(self, queue: str) -> int:
        """Forget which messages are out, if none is; answers how many keys that were."""
        keys = self.keys(queue)
        async with within(self.deadline):
            return cast(
                "int",
                await run(self.redis, script("clear"), [keys.stream, keys.window, keys.parked]),
            )

    async def depth(self, queue: str) -> Depth:
        keys = self.keys(queue)
        async with within(self.deadline):
            figures = await run(
                self.redis,
                script("depth"),
                [keys.stream, keys.window, keys.parked, keys.counters],
            )
        return Depth(*figures)
