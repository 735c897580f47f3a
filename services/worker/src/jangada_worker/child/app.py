"""One worker process, put together: from the link to the parent to the last job's end."""

import asyncio
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Final
from uuid import UUID

from jangada.jobs import registry
from jangada.jobs.context import JobContext
from jangada.jobs.delivery.connection import DirectConnection, Manner
from jangada.jobs.delivery.grant import GrantedJob
from jangada.jobs.delivery.kinds import facts_of
from jangada.runtime import Runtime
from jangada.telemetry import get_logger
from jangada_queue.errors import QueueUnavailable
from jangada_queue.patience import Pauses, Stop, wait_at_most
from jangada_queue.signals import cancel_nudges, tell
from jangada_worker.child.broker import JobBroker, JobReceiver
from jangada_worker.child.endings import EndingWriter
from jangada_worker.child.intake import Desk, Intake
from jangada_worker.child.progress import ProgressReporter
from jangada_worker.child.running import Running
from jangada_worker.child.slots import Slots
from jangada_worker.executor import Execution, Interruption, Workshop, execute
from jangada_worker.link import (
    CancelJobs,
    Drain,
    Farewell,
    Flagged,
    HandBack,
    Identity,
    Link,
    Observation,
    Observations,
    Ready,
    Report,
    ToChild,
    ToParent,
)
from jangada_worker.patience import GRACE, LAST_WORDS

log = get_logger(__name__)

REPORT_EVERY: Final = 0.5
STATEMENT_DEADLINE: Final = timedelta(seconds=30)


class ParentGone(Exception):
    """The parent has ended: nobody beats for this process any more."""


class ChildWorker:
    """Runs jobs until the parent says to drain."""

    def __init__(
        self,
        runtime: Runtime,
        link: Link[ToChild, ToParent],
        *,
        kinds: frozenset[str],
        pod: str,
    ) -> None:
        worker = runtime.settings.worker
        self._runtime = runtime
        self._link = link
        self._kinds = kinds
        self._running = Running()
        self._ended: list[Observation] = []
        self._tallies: Counter[tuple[str, ...]] = Counter()
        runtime.database.tally = self._tallies.update
        self._stop = Stop()
        self._drain_seconds = worker.drain_timeout.total_seconds()
        self._identity: UUID | None = None
        self._flag = ""
        self._slots = Slots(worker.slots)
        self._connections = [
            DirectConnection(runtime.database, deadline=STATEMENT_DEADLINE, manner=Manner.PROBING)
            for _ in range(2)
        ]
        granting, finishing = self._connections
        self._endings = EndingWriter(finishing, runtime.queue, young=self._running.young)
        self._threads = ThreadPoolExecutor(worker.slots, thread_name_prefix="job")
        self._shop = Workshop(runtime, self._threads, self._endings.write, self._ended.append)
        self._broker = JobBroker(self._run_job)
        self._intake = Intake(
            Desk(
                client=runtime.queue,
                connection=granting,
                slots=self._slots,
                queues=worker.queues,
                kinds=kinds,
                pod=pod,
                lease=runtime.settings.jobs.message_lease,
                accept=self._accept,
                running=lambda: self._running.job_ids,
                young=self._running.young,
            )
        )

    async def run(self) -> None:
        """Return when drained. Raises `ParentGone` (in a group)."""
        self._handle_signals()
        known = [registry.get(kind) for kind in sorted(self._kinds)]
        self._link.send(
            Ready(
                [facts_of(each.args) for each in known],
                {each.kind: each.timeout.total_seconds() for each in known},
            )
        )
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(work)
                for work in (
                    self._listen_to_parent(),
                    self._listen_for_cancels(),
                    self._endings.run(),
                    self._report(),
                )
            ]
            await self._work()
            for task in background:
                task.cancel()
        self._say_what_runs()
        self._link.send(Farewell())
        await self._link.flush()
        for connection in self._connections:
            await connection.close()

    async def _work(self) -> None:
        """Take and run jobs until the drain is asked for, and then to its end."""
        finish = asyncio.Event()
        receiver = JobReceiver(self._broker, self._threads, slots=self._slots.capacity)
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(receiver.listen(finish))
            taking = group.create_task(self._intake.run())
            await self._stop.asked.wait()
            self._intake.stop.set()
            await taking
            finish.set()
            await self._end_running()
            receiving.cancel()
        await self._broker.shutdown()

    async def _end_running(self) -> None:
        """Wait for what runs; when its time is up, or there is a hurry, hand it back."""
        unbegun = self._broker.take_back()
        for execution in unbegun:
            execution.interrupt(Interruption.HAND_BACK)
        handing_back = [asyncio.create_task(self._run_job(each)) for each in unbegun]
        hurried = asyncio.ensure_future(self._stop.hurried.wait())
        idle = asyncio.ensure_future(self._slots.wait_idle())
        await asyncio.wait(
            {hurried, idle}, timeout=self._drain_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        hurried.cancel()
        idle.cancel()
        self._running.interrupt_all(Interruption.HAND_BACK)
        # What can't be stopped ends with the process, once it is written that it is handed back.
        recorded = asyncio.gather(*(execution.recorded.wait() for execution in self._running))
        await wait_at_most(recorded, (GRACE + LAST_WORDS).total_seconds())
        for task in handing_back:
            task.cancel()

    def _accept(self, job: GrantedJob, slots: int) -> None:
        """A granted job occupies its slots from now on."""
        self._slots.take(slots)
        context = JobContext(
            runtime=self._runtime,
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            request_id=job.request_id,
        )
        interrupted = asyncio.get_running_loop().create_future()
        execution = Execution(self._shop, job, context, interrupted, slots)
        self._running.add(execution)
        self._broker.put(execution)

    async def _run_job(self, execution: Execution) -> None:
        progress = ProgressReporter(self._runtime.queue, execution.job)
        execution.context.report = progress
        try:
            await execute(execution)
            await self._tell_of_room(execution.job)
        finally:
            self._running.remove(execution)
            self._slots.release(execution.slots)
            await progress.close()

    async def _tell_of_room(self, job: GrantedJob) -> None:
        """The end of a limited job may let another one start; without this, at the next look."""
        if job.is_limited:
            with suppress(QueueUnavailable):
                await tell(self._runtime.queue, wake=[job.queue])

    async def _listen_to_parent(self) -> None:
        async for message in self._link.messages():
            match message:
                case Identity():
                    self._take_identity(message.worker)
                case CancelJobs():
                    for job_id in message.jobs:
                        self._running.interrupt(job_id, Interruption.CANCEL)
                case Flagged():
                    self._flag = message.flag
                    self._say_what_runs()
                case Drain():
                    self._drain_seconds = message.seconds
                    self._stop.asked.set()
                case HandBack():
                    self._stop.asked.set()
                    self._stop.hurried.set()
        raise ParentGone

    def _take_identity(self, worker: UUID) -> None:
        """Under a new id nothing that was granted under the old one is ours any more."""
        if self._identity is not None:
            log.warning("declared dead: all jobs are given up", jobs=len(self._running))
            self._running.interrupt_all(Interruption.LEASE_LOST)
        self._identity = worker
        self._intake.identify(worker)

    def _handle_signals(self) -> None:
        """The parent gives the orders; a SIGTERM to this process alone drains it alone.

        One to all processes of the group drains, too, whoever hears it first; only the parent says
        when to hurry. Ctrl-C reaches them all: the parent answers for all.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, self._stop.asked.set)

    async def _listen_for_cancels(self) -> None:
        """Cancel at once what somebody asked to cancel; the beat brings it too, a little later."""
        pauses = Pauses()
        while True:
            try:
                async for work in cancel_nudges(self._runtime.queue):
                    pauses.reset()
                    self._running.interrupt(UUID(work), Interruption.CANCEL)
            except (QueueUnavailable, ValueError):
                await asyncio.sleep(pauses.take())

    async def _report(self) -> None:
        while True:
            self._say_what_runs()
            await asyncio.sleep(REPORT_EVERY)

    def _say_what_runs(self) -> None:
        self._link.send(Report(self._running.report(), self._intake.claiming, self._flag))
        if self._ended or self._tallies:
            self._link.send(Observations(self._ended.copy(), list(self._tallies.items())))
            self._ended.clear()
            self._tallies.clear()
