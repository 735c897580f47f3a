"""Where a worker process gets its messages: it waits for work, and claims what it has room for."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueUnavailable
from jangada_queue.leases.ledger import Delivery, Ending, Ledger
from jangada_queue.patience import Pauses

log = logging.getLogger(__name__)

WORK_WAIT: Final = timedelta(seconds=1)
"""How long a wait for work lasts at most: then it is looked for, should a token have got lost."""

DRAIN_LOOK: Final = 0.25
"""How often a draining pod looks whether it may claim again, in seconds."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims, from where, what it understands, and what it waits for before each claim."""

    worker: str
    pod: str
    queues: Sequence[str]
    kinds: Callable[[], Collection[str]]
    renewing: Callable[[], Awaitable[None]]


class _Taken(NamedTuple):
    """What a claim brought."""

    deliveries: list[Delivery]
    is_draining: bool


class Source:
    """Claims for one process. One `take` at a time."""

    def __init__(self, client: QueueClient, ledger: Ledger, claimant: Claimant) -> None:
        self._client = client
        self._ledger = ledger
        self._claimant = claimant
        self._turns = 0
        self._pauses = Pauses()
        self._more: str | None = None
        """A queue in which something waited after the last claim: it needs no token."""

        self.claiming = 0
        """Claims under way."""

    async def take(self, count: int) -> list[Delivery]:
        """At least one delivery and at most `count`, once there are any.

        While Valkey is absent it tries again, with pauses. Cancelled in the middle of a claim it
        hands back what the claim brings.
        """
        while True:
            try:
                taken = await self._attempt(count)
            except QueueUnavailable as error:
                if self._pauses.is_first:
                    log.warning("nothing is claimed for now: %s", error)
                self._more = None
                await asyncio.sleep(self._pauses.take())
                continue
            if not self._pauses.is_first:
                log.info("messages are claimed again")
            self._pauses.reset()
            if taken:
                return taken

    async def _attempt(self, count: int) -> list[Delivery]:
        queue, has_token = await self._wait()
        await self._claimant.renewing()
        claiming = asyncio.ensure_future(self._claim(queue, count, has_token=has_token))
        try:
            answer = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(self._hand_back)
            raise
        if answer.is_draining:
            await asyncio.sleep(DRAIN_LOOK)
        return answer.deliveries

    def _hand_back(self, claiming: asyncio.Future[_Taken]) -> None:
        if not claiming.cancelled() and claiming.exception() is None:
            for delivery in claiming.result().deliveries:
                self._ledger.end(delivery, Ending.HANDED_BACK)

    async def _wait(self) -> tuple[str, bool]:
        """The queue to claim from, and whether a token of it was taken.

        Without one the queues are tried in turn: a token may have got lost.
        """
        if self._more is not None:
            return self._more, False
        self._turns += 1
        queues = self._claimant.queues
        first = self._turns % len(queues)
        woken = await self._client.wait_for_work([*queues[first:], *queues[:first]], WORK_WAIT)
        return (woken, True) if woken else (queues[first], False)

    async def _claim(self, queue: str, count: int, *, has_token: bool) -> _Taken:
        """What is claimed is in the ledger as soon as no claim is under way any more."""
        claimant = self._claimant
        self.claiming += 1
        try:
            answer = await self._client.claim(
                queue,
                claimant.worker,
                count,
                pod=claimant.pod,
                kinds=claimant.kinds(),
                has_token=has_token,
            )
            deliveries = self._ledger.hold(answer.claims)
        finally:
            self.claiming -= 1
        has_more = answer.waiting > 0 and not answer.is_draining
        self._more = queue if has_more and len(self._claimant.queues) == 1 else None
        return _Taken(deliveries, answer.is_draining)
