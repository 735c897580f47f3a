"""One worker process of queues whose truth is Valkey: what it needs from its start to its end."""

import asyncio
import logging
import os
import socket
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueUnavailable, UnsafeServer
from jangada_queue.leases.client import serve
from jangada_queue.leases.keeper import Held, News, Plan
from jangada_queue.leases.keeping import Keeping
from jangada_queue.leases.ledger import Delivery, Ending, Ledger, LossPolicy
from jangada_queue.leases.source import Claimant, Source
from jangada_queue.patience import Pauses, wait_at_most
from jangada_queue.server import check_server
from jangada_queue.workers import WorkerReport

log = logging.getLogger(__name__)

TURN: Final = 0.25
"""A signal that comes while the loop waits is noticed after so many seconds."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a lease lasts, how often it is renewed, and how often ended ones are looked for."""

    lease: timedelta = timedelta(seconds=10)
    renew_every: timedelta = timedelta(seconds=3)
    sweep_every: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        for each in fields(self):
            given = getattr(self, each.name)
            if not isinstance(given, timedelta):
                raise TypeError(f"{each.name} must be a timedelta, not {given!r}")
        if self.lease <= timedelta(0):
            raise ValueError("the lease must be longer than nothing")
        if not timedelta(0) < self.renew_every <= self.lease / 3:
            raise ValueError("renew_every must be at most a third of the lease")
        if not timedelta(0) < self.sweep_every <= self.lease / 4:
            raise ValueError("sweep_every must be at most a quarter of the lease")


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What a worker process is to be. `kinds` is asked at each claim."""

    url: str
    options: Mapping[str, Any]
    queues: tuple[str, ...]
    kinds: Callable[[], Collection[str]]
    pod: str
    version: str
    slots: int
    times: LeaseTimes
    most_losses: int


@dataclass(slots=True)
class LeaseWorker:
    """Claims, holds and reports for one process, between `start` and `close`."""

    client: QueueClient
    plan: WorkerPlan
    id: str = field(default_factory=lambda: uuid4().hex)
    slots: int = 0
    ledger: Ledger = field(init=False)
    source: Source = field(init=False)
    _keeping: Keeping = field(init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _background: list[asyncio.Task[None]] = field(default_factory=list)
    _introduced: asyncio.Event = field(default_factory=asyncio.Event)
    _flag: str = ""

    def __post_init__(self) -> None:
        plan, times = self.plan, self.plan.times
        self.slots = plan.slots
        losses = LossPolicy(plan.most_losses, times.lease)
        self.ledger = Ledger(self.client, self.id, losses, changed=self._changed.set)
        self._keeping = Keeping(
            Plan(
                url=plan.url,
                options=plan.options,
                prefix=self.client.prefix,
                queues=plan.queues,
                worker=self.id,
                pod=plan.pod,
                pid=os.getpid(),
                lease=times.lease,
                renew_every=times.renew_every,
                sweep_every=times.sweep_every,
                most_losses=plan.most_losses,
            ),
            news=self._news,
            flagged=self._take_flag,
        )
        claimant = Claimant(self.id, plan.pod, plan.queues, plan.kinds, self._may_claim)
        self.source = Source(self.client, self.ledger, claimant)

    @property
    def helper(self) -> Process | None:
        """The process that keeps the leases; none between two of them."""
        return self._keeping.process

    @property
    def is_renewing(self) -> bool:
        """Whether leases were renewed lately: without it nothing is claimed."""
        return self._keeping.is_renewing

    async def start(self) -> None:
        """Begin. Raises `UnsafeServer` for another's queue.

        While Valkey is absent nothing is claimed; whoever starts us doesn't wait for it, and may
        end us meanwhile.
        """
        self._keeping.start()
        self._background = [asyncio.create_task(work) for work in (self.ledger.run(), self._turn())]
        try:
            await self._introduce()
        except QueueUnavailable as error:
            log.warning("starting without Valkey: %s", error)
            self._background.append(asyncio.create_task(self._keep_introducing()))

    async def _introduce(self) -> None:
        await serve(self.client, self.plan.queues)
        await self._warn_of_eviction()
        self._introduced.set()

    async def _keep_introducing(self) -> None:
        pauses = Pauses()
        while not self._introduced.is_set():
            await asyncio.sleep(pauses.take())
            try:
                await self._introduce()
            except QueueUnavailable:
                continue
            except UnsafeServer as error:
                log.critical("nothing is ever claimed: %s", error)
                return

    async def _may_claim(self) -> None:
        """Return once the queues are ours and leases are being renewed."""
        await self._introduced.wait()
        await self._keeping.renewing()

    async def _warn_of_eviction(self) -> None:
        try:
            await check_server(self.client)
        except UnsafeServer as error:
            log.warning("messages can be lost: %s", error)

    @staticmethod
    async def _turn() -> None:
        """Asyncio notices a signal at its next event: this is one."""
        while True:  # noqa: ASYNC110 - the event is the sleep's own end
            await asyncio.sleep(TURN)

    def _take_flag(self, flag: str) -> None:
        if flag != self._flag:
            log.info("the pod is to drain" if flag else "the pod claims again")
        self._flag = flag
        self._keeping.tell()

    def _news(self, is_last: bool) -> News:
        return News(
            WorkerReport(
                worker=self.id,
                pod=self.plan.pod,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=self.plan.version,
                queues=list(self.plan.queues),
                kinds=sorted(self.plan.kinds()),
                slots=self.slots,
                running=self.ledger.running(),
                claiming=self.source.claiming + self.ledger.held,
                drain=self._flag,
            ),
            dict(self.ledger.take_completed()),
            None if self.source.claiming else Held(time.monotonic(), self.ledger.ids()),
            is_last=is_last,
        )

    def hand_back(self, deliveries: Collection[Delivery]) -> None:
        """Others may start them at once."""
        for delivery in deliveries:
            self.ledger.end(delivery, Ending.HANDED_BACK)

    def hand_back_unstarted(self) -> None:
        self.hand_back([each for each in self.ledger.deliveries if each.started is None])

    async def wait_for(self, are_done: Callable[[Collection[Delivery]], bool]) -> None:
        """Return once that is true of the deliveries whose leases haven't ended."""
        while not are_done(self.ledger.deliveries):
            self._changed.clear()
            await self._changed.wait()

    async def close(self, *, within: float) -> None:
        """End in order. What can't be told to Valkey in so many seconds is left to the leases."""
        await wait_at_most(self.ledger.flush(), within)
        await self._keeping.close()
        for task in self._background:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait(self._background)
