"""As many worker processes as let jobs start in time: what the operator does with pods.

The same policy decides, the same flags drain, the same script proves that a process is empty. Each
process is drained by itself, so each reports under a pod of its own.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

from jangada.telemetry import get_logger
from jangada.worker_settings import WorkerSettings
from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueUnavailable
from jangada_queue.policy.decide import Decision, decide
from jangada_queue.policy.history import History
from jangada_queue.policy.observation import Observation, Running, Seen, Stage
from jangada_queue.policy.reading import Reading, read
from jangada_queue.policy.wanted import ScaleDown, Wanted
from jangada_queue.pools import PoolStatus, write_pool
from jangada_queue.statistics import queue_stats
from jangada_queue.workers import RunningWork, flag_drain, is_empty, unflag_drain

LOOK_EVERY: Final = 1.0
FLAG: Final = timedelta(seconds=60)
NAME: Final = "local"

log = get_logger(__name__)


class Process(Protocol):
    """A worker process, as far as its pool knows it."""

    @property
    def pod(self) -> str: ...
    @property
    def born(self) -> float: ...
    @property
    def is_ready(self) -> bool: ...
    @property
    def running(self) -> list[RunningWork]: ...
    @property
    def claiming(self) -> int: ...


@dataclass(slots=True)
class LocalPool:
    """Decides once a second; `start` starts a process, `end` ends one that is empty."""

    settings: WorkerSettings
    client: QueueClient
    processes: Callable[[], Mapping[str, Process]]
    """Those that run, by their pods."""

    asked: Callable[[], int]
    """How many there are to be, those that are being started or replaced included."""

    start: Callable[[], None]
    end: Callable[[str], None]
    _history: History = field(default_factory=History)
    _flags: dict[str, tuple[str, float]] = field(default_factory=dict)
    _ending: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Look until cancelled. Without Valkey the number of processes stays."""
        while True:
            try:
                await self._look()
            except QueueUnavailable:
                self._history = History()
            await asyncio.sleep(LOOK_EVERY)

    def _wanted(self) -> Wanted:
        settings = self.settings
        return Wanted(
            least=settings.min_processes or 0,
            most=settings.processes,
            start_within=settings.start_within,
            slots=settings.slots,
            scale_down=ScaleDown(after=settings.scale_down_after),
        )

    async def _look(self) -> None:
        reading = read(await queue_stats(self.client, self.settings.queues))
        seen = self._observe(reading)
        decision = decide(self._wanted(), seen, self._history, time.time())
        if decision.size != self._size(seen):
            log.info("pool", size=decision.size, why=decision.message)
        self._history = decision.history
        await self._act(decision, seen)
        await write_pool(self.client, self._status(decision, seen))

    @staticmethod
    def _size(seen: Observation) -> int:
        return sum(each.stage in {Stage.STARTING, Stage.READY} for each in seen.pool)

    def _observe(self, reading: Reading) -> Observation:
        processes = self.processes()
        for pod in [pod for pod in self._flags if pod not in processes]:
            del self._flags[pod]
            self._ending.discard(pod)
        now = time.monotonic()
        return Observation(
            replicas=self.asked(),
            pool=[self._seen(pod, each, now) for pod, each in processes.items()],
            signals=reading.signals,
            signals_age=reading.age,
        )

    def _seen(self, pod: str, process: Process, now: float) -> Seen:
        return Seen(
            id=pod,
            stage=self._stage(pod, process),
            age=now - process.born,
            slots=self.settings.slots if process.is_ready else 0,
            held=len(process.running) + process.claiming,
            running=[Running(each.kind, each.seconds) for each in process.running],
            drained_for=now - self._flags[pod][1] if pod in self._flags else 0.0,
        )

    def _stage(self, pod: str, process: Process) -> Stage:
        if pod in self._ending:
            return Stage.COMMITTED
        if pod in self._flags:
            return Stage.DRAINING
        return Stage.READY if process.is_ready else Stage.STARTING

    async def _act(self, decision: Decision, seen: Observation) -> None:
        for pod in decision.undrain:
            await unflag_drain(self.client, self.settings.queues, pod)
            del self._flags[pod]
        for pod in decision.drain:
            flag, since = self._flags.get(pod, ("", time.monotonic()))
            flag = await flag_drain(self.client, self.settings.queues, pod, FLAG, flag=flag)
            self._flags[pod] = (flag, since)
            if await is_empty(self.client, self.settings.queues, pod):
                self._ending.add(pod)
                self.end(pod)
        for _ in range(decision.replicas - seen.replicas):
            self.start()

    def _status(self, decision: Decision, seen: Observation) -> PoolStatus:
        signals = seen.signals
        return PoolStatus(
            name=NAME,
            queues=self.settings.queues,
            replicas=seen.replicas,
            desired=decision.size,
            least=self.settings.min_processes or 0,
            most=self.settings.processes,
            draining=sum(each.stage is Stage.DRAINING for each in seen.pool),
            slots=sum(each.slots for each in seen.pool),
            busy=sum(each.held for each in seen.pool),
            backlog=0 if signals is None else signals.backlog,
            oldest_wait_seconds=0.0 if signals is None else signals.oldest_wait,
            why=str(decision.reason),
            message=decision.message,
        )
