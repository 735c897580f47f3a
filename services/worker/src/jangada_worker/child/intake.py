"""Brings jobs in: waits for a free slot and for work, claims, is granted, hands over.

Nothing is claimed that couldn't start at once, so nothing waits here while others are idle. The
message is acknowledged right after the grant: from there on the parent's beat is the lease.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import psycopg

from jangada.errors import Unavailable
from jangada.jobs.delivery.connection import DirectConnection
from jangada.jobs.delivery.grant import GrantedJob, grant
from jangada.jobs.delivery.tickets import Ticket, UnreadableTicket
from jangada.jobs.delivery.workers import hand_back
from jangada.telemetry import get_logger
from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueUnavailable
from jangada_queue.messages import Claim
from jangada_queue.patience import Pauses, pause, unless, wait_at_most
from jangada_queue.signals import tell
from jangada_worker.child.slots import Slots

log = get_logger(__name__)

WORK_WAIT: Final = timedelta(seconds=1)
"""How long a wait for work lasts at most: then it is looked for, should a token have got lost."""

LINGER: Final = 0.003
"""How long a free slot waits for others at most, in seconds: short jobs end together, and the next
ones are claimed and granted in one step."""

DRAIN_LOOK: Final = 0.25
"""How often a draining pod looks whether it may claim again, in seconds."""

RECONCILE_EVERY: Final = 30.0
"""How often rows that say "running here" are compared with what runs, in seconds."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the intake works with."""

    client: QueueClient
    connection: DirectConnection
    slots: Slots
    queues: Sequence[str]
    kinds: Collection[str]
    pod: str
    lease: timedelta
    accept: Callable[[GrantedJob, int], None]
    running: Callable[[], Collection[UUID]]
    young: Callable[[], int]


class Intake:
    """One loop, one claim under way at a time, until `stop` is set."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.stop = asyncio.Event()
        self.claiming = 0
        """Claims under way, and claimed messages of which it isn't known yet whether they run."""
        self._worker: UUID | None = None
        self._identified = asyncio.Event()
        self._turns = 0
        self._reconciled_at = time.monotonic()
        self._is_doubtful = False
        self._has_more = False
        """Whether something waited in the only queue after the last claim: it needs no token."""

    def identify(self, worker: UUID) -> None:
        """Claim under this id from now on."""
        self._worker = worker
        self._identified.set()

    async def run(self) -> None:
        """Bring jobs in until `stop` is set; what is claimed then is granted or released first."""
        pauses = Pauses()
        while not self.stop.is_set():
            try:
                await self._turn()
                if not pauses.is_first:
                    log.info("jobs are taken again")
                pauses.reset()
            except (QueueUnavailable, Unavailable, psycopg.Error) as error:
                self._has_more = False
                if pauses.is_first:
                    log.warning("no jobs are taken for now", error=error)
                await pause(self.stop, pauses.take())

    async def _turn(self) -> None:
        await unless(self.stop, self._identified.wait())
        free = await unless(self.stop, self.desk.slots.wait_free())
        if free is None or self._worker is None:
            return
        if self._has_more:
            await unless(self.stop, self._linger(free))
        await self._reconcile(self._worker)
        claims = await self._take()
        if claims:
            with self._in_hand(len(claims)):
                await self._start(self._worker, claims)

    @contextmanager
    def _in_hand(self, count: int) -> Iterator[None]:
        self.claiming += count
        try:
            yield
        finally:
            self.claiming -= count

    async def _linger(self, free: int) -> None:
        """Wait for slots that are about to be free: half of those whose jobs have just begun."""
        wanted = (free + self.desk.young()) // 2
        if free < wanted:
            await wait_at_most(self.desk.slots.wait_free(wanted), LINGER)

    async def _take(self) -> list[Claim]:
        """What a queue with work gives. Without a token all are asked: one may have got lost."""
        queues, woken = self._rotated(), None
        if self.stop.is_set():
            return []
        if not self._has_more:
            woken = await unless(self.stop, self.desk.client.wait_for_work(queues, WORK_WAIT))
            if self.stop.is_set():
                return []
        return await self._claim([woken] if woken else queues, has_token=woken is not None)

    def _rotated(self) -> list[str]:
        """The queues, another one first each time, so that none starves behind its neighbours."""
        self._turns += 1
        first = self._turns % len(self.desk.queues)
        return [*self.desk.queues[first:], *self.desk.queues[:first]]

    async def _claim(self, queues: Sequence[str], *, has_token: bool) -> list[Claim]:
        desk, claims = self.desk, list[Claim]()
        for queue in queues:
            room = desk.slots.free - len(claims)
            if room <= 0:
                break
            try:
                with self._in_hand(1):
                    answer = await desk.client.claim(
                        queue,
                        str(self._worker),
                        room,
                        pod=desk.pod,
                        kinds=desk.kinds,
                        has_token=has_token,
                    )
            except QueueUnavailable:
                if not claims:
                    raise
                break  # what has come runs; the next turn says what is the matter
            claims += answer.claims
            self._has_more = answer.waiting > 0 and len(desk.queues) == 1
            if answer.is_draining:
                self._has_more = False
                await pause(self.stop, DRAIN_LOOK)
                break
        return claims

    async def _start(self, worker: UUID, claims: Sequence[Claim]) -> None:
        readable = list(_readable(claims))
        together = [pair for pair in readable if not pair[1].is_alone]
        alone = [pair for pair in readable if pair[1].is_alone]
        if len(readable) < len(claims):
            known = {claim.id for claim, _ in readable}
            await self._forget(claim for claim in claims if claim.id not in known)
        if together:
            await self._grant(worker, together)
        for pair in alone:
            await self._start_alone(worker, pair)

    async def _grant(
        self, worker: UUID, pairs: Sequence[tuple[Claim, Ticket]], *, is_alone: bool = False
    ) -> None:
        tickets = [ticket for _, ticket in pairs]
        claims = [claim for claim, _ in pairs]
        try:
            granted = await self.desk.connection.run(
                lambda found: grant(found, worker, tickets, is_alone=is_alone)
            )
        except BaseException:
            # The answer may have been lost on the way: then rows say that they run here.
            self._is_doubtful = True
            await self._release(claims)
            raise
        for job in granted:
            self.desk.accept(job, self.desk.slots.capacity if is_alone else 1)
        await self._forget(claims)

    async def _start_alone(self, worker: UUID, pair: tuple[Claim, Ticket]) -> None:
        """A job that died with its process before runs when nothing else does.

        Its message's lease is renewed while it waits, so that no second process empties itself.
        """
        claim, _ = pair
        third = self.desk.lease.total_seconds() / 3
        while self.desk.slots.taken > 0 and not self.stop.is_set():
            idle = unless(self.stop, self.desk.slots.wait_idle())
            if await wait_at_most(idle, third):
                continue
            if not await self.desk.client.renew(claim.queue, str(worker), [claim]):
                return
        if self.stop.is_set():
            await self._release([claim])
            return
        await self._grant(worker, [pair], is_alone=True)

    async def _reconcile(self, worker: UUID) -> None:
        """Hand back rows that say they run here and don't. No grant is under way now."""
        is_due = time.monotonic() - self._reconciled_at >= RECONCILE_EVERY
        if not (is_due or self._is_doubtful):
            return
        known = tuple(self.desk.running())
        queues = await self.desk.connection.run(
            lambda found: hand_back(found, [worker], keep=known)
        )
        self._is_doubtful = False
        self._reconciled_at = time.monotonic()
        if queues:
            log.warning("jobs were handed back that did not start here", queues=queues)
            await tell(self.desk.client, wake=queues)

    async def _forget(self, claims: Iterable[Claim]) -> None:
        """Acknowledge; where Valkey is absent the messages' leases end, to the same effect."""
        for queue, found in _by_queue(claims).items():
            try:
                await self.desk.client.ack(queue, found)
            except QueueUnavailable as error:
                log.debug("messages were not acknowledged", error=error)

    async def _release(self, claims: Iterable[Claim]) -> None:
        for queue, found in _by_queue(claims).items():
            try:
                await self.desk.client.release(queue, found)
            except QueueUnavailable as error:
                log.debug("messages were not released", error=error)


def _readable(claims: Iterable[Claim]) -> Iterable[tuple[Claim, Ticket]]:
    for claim in claims:
        try:
            yield claim, Ticket.read(claim)
        except UnreadableTicket:
            log.warning("an unreadable message was dropped", queue=claim.queue, id=claim.id)


def _by_queue(claims: Iterable[Claim]) -> dict[str, list[Claim]]:
    found: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        found[claim.queue].append(claim)
    return found
