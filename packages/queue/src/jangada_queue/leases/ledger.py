"""What one worker process holds: each message from the claim to the end of its lease.

A delivery is *held* from the claim on, and *runs* while its callback does. Its lease ends when it
is acknowledged, found unreadable or handed back, or when its callback ends without any of these:
whatever a middleware did, nothing stays behind. How it ends is told to Valkey for as long as that
takes; where the lease had been lost meanwhile, it means nothing any more.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from functools import partial
from typing import Any, Final

from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueUnavailable
from jangada_queue.leases import client as leases
from jangada_queue.messages import Claim
from jangada_queue.patience import Pauses
from jangada_queue.service_times import ServiceTimes
from jangada_queue.workers import RunningWork

log = logging.getLogger(__name__)

BATCH: Final = 500
LONGEST_DETAIL: Final = 500


class Ending(Enum):
    """How a lease ends by this process's own doing."""

    ACKNOWLEDGED = auto()
    UNREADABLE = auto()
    HANDED_BACK = auto()
    LOST = auto()


@dataclass(slots=True, eq=False)
class Delivery:
    """One message under a lease of this process."""

    claim: Claim
    started: float | None = None
    ending: Ending | None = None
    detail: str = ""
    defect: str = ""
    """Why it can't be read: then its acknowledgement makes it a dead letter."""

    seconds: float = 0.0
    settled: asyncio.Future[bool] | None = None
    """From the ending on; whether it counted, once Valkey has said so."""

    runs: bool = False
    """Whether its callback runs, which it may for long after an early acknowledgement."""


@dataclass(frozen=True, slots=True)
class LossPolicy:
    """How many leases a message may lose, and how long one waits whose callback failed to end."""

    most: int
    delay: timedelta


class Ledger:
    """All deliveries of this process. Endings are sent by `run`, in batches."""

    def __init__(
        self, client: QueueClient, worker: str, losses: LossPolicy, *, changed: Callable[[], None]
    ) -> None:
        self._client = client
        self._worker = worker
        self._losses = losses
        self._changed = changed
        self._deliveries: set[Delivery] = set()
        self._ended: list[Delivery] = []
        self._woken = asyncio.Event()
        self._completed: dict[str, ServiceTimes] = defaultdict(ServiceTimes)

    @property
    def held(self) -> int:
        """How many are held without running."""
        return sum(delivery.started is None for delivery in self._deliveries)

    @property
    def deliveries(self) -> frozenset[Delivery]:
        """All whose leases haven't ended, or whose callbacks run."""
        return frozenset(self._deliveries)

    def ids(self) -> dict[str, list[str]]:
        """Of all that is held or whose end Valkey hasn't confirmed, by queue."""
        found: dict[str, list[str]] = defaultdict(list)
        for delivery in self._deliveries:
            found[delivery.claim.queue].append(delivery.claim.id)
        return found

    def running(self) -> list[RunningWork]:
        now = time.monotonic()
        return [
            RunningWork(delivery.claim.key, delivery.claim.kind, now - delivery.started)
            for delivery in self._deliveries
            if delivery.started is not None and delivery.runs
        ]

    def take_completed(self) -> Mapping[str, ServiceTimes]:
        """What was completed since the last time: acknowledged while the lease was held."""
        taken, self._completed = self._completed, defaultdict(ServiceTimes)
        return taken

    def hold(self, claims: Iterable[Claim]) -> list[Delivery]:
        held = [Delivery(claim) for claim in claims]
        self._deliveries.update(held)
        return held

    def start(self, delivery: Delivery, callback: asyncio.Task[Any]) -> None:
        """Its callback runs from here on, as this task; with the task the lease ends."""
        if delivery.started is None:
            delivery.started, delivery.runs = time.monotonic(), True
            callback.add_done_callback(lambda task: self._callback_ended(delivery, task))
            self._changed()

    def _callback_ended(self, delivery: Delivery, task: asyncio.Task[Any]) -> None:
        delivery.runs = False
        if delivery.ending is not None:
            self._forget(delivery)
        elif task.cancelled():
            self.end(delivery, Ending.HANDED_BACK)
        else:
            error = task.exception()
            why = f"{type(error).__name__}: {error}" if error else "It was not acknowledged."
            self.end(delivery, Ending.LOST, f"Its callback ended without its task. {why}")

    async def acknowledge(self, delivery: Delivery) -> None:
        """Return once Valkey has confirmed it, or the lease is known to be lost. Never raises."""
        ending = Ending.UNREADABLE if delivery.defect else Ending.ACKNOWLEDGED
        await asyncio.shield(self.end(delivery, ending, delivery.defect))

    def end(self, delivery: Delivery, ending: Ending, detail: str = "") -> asyncio.Future[bool]:
        """End a lease; only the first ending counts. The answer comes when Valkey has confirmed."""
        if delivery.settled is None:
            delivery.settled = asyncio.get_running_loop().create_future()
            delivery.ending, delivery.detail = ending, detail[:LONGEST_DETAIL]
            delivery.seconds = time.monotonic() - (delivery.started or time.monotonic())
            self._ended.append(delivery)
            self._woken.set()
        return delivery.settled

    async def flush(self) -> None:
        """Return when every ending so far is confirmed."""
        unsettled = [each.settled for each in self._deliveries if each.settled is not None]
        if unsettled:
            await asyncio.wait(unsettled)

    async def run(self) -> None:
        """Tell Valkey of endings, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while batch := self._ended[:BATCH]:
                del self._ended[: len(batch)]
                await self._send(batch)

    async def _send(self, batch: list[Delivery]) -> None:
        groups: dict[tuple[str, Ending, str], list[Delivery]] = defaultdict(list)
        for delivery in batch:
            if delivery.ending is not None:
                groups[delivery.claim.queue, delivery.ending, delivery.detail].append(delivery)
        for (queue, ending, detail), group in groups.items():
            claims = [delivery.claim for delivery in group]
            lost = await self._persist(partial(self._tell, queue, ending, detail, claims))
            for delivery in group:
                self._settle(delivery, counts=delivery.claim.id not in lost)

    async def _tell(
        self, queue: str, ending: Ending, detail: str, claims: Sequence[Claim]
    ) -> frozenset[str]:
        """The ids of those whose leases had been lost before, where that matters."""
        match ending:
            case Ending.ACKNOWLEDGED:
                return await self._client.ack(queue, claims)
            case Ending.UNREADABLE:
                for claim in claims:
                    await leases.bury(self._client, claim, detail)
                log.error("unreadable messages are dead letters now: %s", detail)
            case Ending.HANDED_BACK:
                await self._client.release(queue, claims)
            case Ending.LOST:
                await leases.surrender(
                    self._client,
                    queue,
                    self._worker,
                    claims,
                    most_losses=self._losses.most,
                    detail=detail,
                    delay=self._losses.delay,
                )
                log.error("messages were not processed: %s", detail)
        return frozenset()

    async def _persist[T](self, tell: Callable[[], Awaitable[T]]) -> T:
        pauses = Pauses()
        while True:
            try:
                return await tell()
            except QueueUnavailable as error:
                if pauses.is_first:
                    log.warning("acknowledgements wait for Valkey: %s", error)
                await asyncio.sleep(pauses.take())

    def _settle(self, delivery: Delivery, *, counts: bool) -> None:
        if delivery.ending is Ending.ACKNOWLEDGED and counts:
            self._completed[delivery.claim.queue].add(delivery.seconds, delivery.claim.kind)
        if delivery.settled is not None and not delivery.settled.done():
            delivery.settled.set_result(counts)
        self._forget(delivery)

    def _forget(self, delivery: Delivery) -> None:
        """Once its ending is confirmed and its callback has ended, whichever comes last."""
        if not delivery.runs and delivery.settled is not None and delivery.settled.done():
            self._deliveries.discard(delivery)
        self._changed()
