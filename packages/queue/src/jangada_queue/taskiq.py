"""A taskiq broker that loses nothing and starts nothing twice: in place of `RedisStreamBroker`.

    from jangada_queue.taskiq import LeasedStreamBroker

    broker = LeasedStreamBroker("redis://localhost:6379").with_result_backend(…)

It is right with taskiq's own receiver (`taskiq worker app:broker`) and fast with ours (`--receiver
jangada_queue.taskiq:LeasedReceiver`, which `jangada-queue worker app:broker` adds). What is
promised and what isn't is written in `docs/guarantees.md`; the protocol in
`docs/queue-protocol.md`.
"""

import asyncio
import logging
import math
import os
import socket
import warnings
from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from inspect import iscoroutinefunction
from typing import Any, Final, override
from uuid import uuid4

import msgspec
from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq.abc.formatter import TaskiqFormatter
from taskiq.message import TaskiqMessage
from taskiq.receiver import Receiver

from jangada_queue.client import QueueClient
from jangada_queue.connection import check_connection, open_client
from jangada_queue.leases.client import kick
from jangada_queue.leases.ledger import Delivery
from jangada_queue.leases.worker import LeaseTimes, LeaseWorker, WorkerPlan
from jangada_queue.messages import Offer
from jangada_queue.patience import unless, wait_at_most

log = logging.getLogger(__name__)

DEADLINE: Final = timedelta(seconds=2)
LAST_ACKS: Final = 2.0
"""How long the last acknowledgements may take at the end, in seconds."""

LAST_THREADS: Final = 2.0
"""How long tasks whose threads have ended may take to be saved and acknowledged, in seconds."""

UNLIMITED: Final = 1000
"""How many tasks run at once where taskiq was told not to limit them."""

POD_VARIABLE: Final = "JANGADA_WORKER__POD_UID"

MEANINGLESS: Final[Mapping[str, tuple[object, str]]] = {
    "consumer_group_name": ("taskiq", "there is one group"),
    "consumer_name": (None, "each process has a name of its own"),
    "consumer_id": ("$", "a new group begins with the oldest message"),
    "mkstream": (True, "streams appear when they are needed"),
    "xread_block": (2000, "nothing blocks in a stream read"),
    "maxlen": (None, "acknowledged messages are deleted, others never"),
    "approximate": (True, "nothing is trimmed"),
    "idle_timeout": (600_000, "leases are renewed while a task runs; see lease"),
    "unacknowledged_batch_size": (100, "ended leases are swept, not read"),
    "unacknowledged_lock_timeout": (None, "ended leases are swept without a lock"),
    "xread_count": (100, "a worker takes as many as it has free slots"),
}
"""Arguments of `RedisStreamBroker` that mean nothing here: what they are by default, and why."""


class LeasedStreamBroker(AsyncBroker):
    """Messages under leases on Valkey ≥ 8 or Redis ≥ 7.0.

    It takes the arguments of taskiq-redis's `RedisStreamBroker`, and warns about those that mean
    nothing here. A message is acknowledged when taskiq says so (`--ack-type`); until then its lease
    is renewed by a helper process, whatever the worker is busy with. One whose worker dies is
    started elsewhere, at once when a process died, after `lease` when a machine did; the third
    loss (`max_losses`) makes it a dead letter. A `delay` label (seconds) has it wait. `slots` is
    only told to those who look at statistics; our receiver knows its own. What can't work is
    refused when it is made: a URL (`ValueError`), another keyword than redis-py's connection takes
    (`TypeError`), times that aren't a `timedelta` (`TypeError`) or don't fit (`ValueError`).
    """

    def __init__(  # noqa: PLR0913, PLR0917 - as the broker that it replaces
        self,
        url: str,
        queue_name: str = "taskiq",
        max_connection_pool_size: int | None = None,
        consumer_group_name: str = "taskiq",
        consumer_name: str | None = None,
        consumer_id: str = "$",
        mkstream: bool = True,
        xread_block: int = 2000,
        maxlen: int | None = None,
        approximate: bool = True,
        idle_timeout: int = 600_000,
        unacknowledged_batch_size: int = 100,
        unacknowledged_lock_timeout: float | None = None,
        xread_count: int | None = 100,
        additional_streams: Mapping[str, str | int] | None = None,
        *,
        lease: timedelta = timedelta(seconds=10),
        renew_every: timedelta = timedelta(seconds=3),
        sweep_every: timedelta = timedelta(seconds=1),
        max_losses: int = 3,
        slots: int = 100,
        pod: str | None = None,
        prefix: str = "jangada",
        **connection_kwargs: Any,  # noqa: ANN401 - redis-py's own
    ) -> None:
        super().__init__(None, None)
        given = dict(locals())
        for name, (default, why) in MEANINGLESS.items():
            if given[name] != default:
                warnings.warn(f"{name} means nothing here: {why}.", stacklevel=2)
        check_connection(url, connection_kwargs)
        self.queue_name = queue_name
        self.queues = tuple(dict.fromkeys([queue_name, *(additional_streams or {})]))
        self._url, self._options = url, connection_kwargs
        self._prefix = prefix
        self._pool_size = max_connection_pool_size or 20
        self._times = LeaseTimes(lease, renew_every, sweep_every)
        self._most_losses = max_losses
        self.slots = slots
        self._pod = pod
        self._client: QueueClient | None = None
        self._worker: LeaseWorker | None = None

    @property
    def client(self) -> QueueClient:
        """The queue's client, opened when it is first used."""
        if self._client is None:
            redis = open_client(self._url, self._options, connections=self._pool_size)
            self._client = QueueClient(redis, prefix=self._prefix, deadline=DEADLINE)
        return self._client

    @property
    def worker(self) -> LeaseWorker:
        """What this process holds, between startup and shutdown of a worker."""
        if self._worker is None:
            raise RuntimeError("the broker hasn't been started as a worker's")
        return self._worker

    @override
    async def startup(self) -> None:
        if self.is_worker_process:
            self.formatter = _NotingFormatter(self.formatter, self)
            self._worker = LeaseWorker(self.client, self._plan())
            await self._worker.start()
        await super().startup()

    def _plan(self) -> WorkerPlan:
        return WorkerPlan(
            url=self._url,
            options=self._options,
            queues=self.queues,
            kinds=self.get_all_tasks,
            pod=self._pod or os.environ.get(POD_VARIABLE) or _made_up_pod(),
            version=version("jangada-queue"),
            slots=self.slots,
            times=self._times,
            most_losses=self._most_losses,
        )

    @override
    async def shutdown(self) -> None:
        """End in order: what is done is acknowledged, everything else is handed back.

        Tasks in threads have ended by now, and only need to be saved. An async task that is still
        running outlived the time that it was given: the process takes it along, another starts it.
        """
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.hand_back_unstarted()
            saved = worker.wait_for(lambda found: all(map(self._is_async, found)))
            await wait_at_most(saved, LAST_THREADS)
        await super().shutdown()
        if worker is not None:
            worker.hand_back(worker.ledger.deliveries)
            await worker.close(within=LAST_ACKS)
        if self._client is not None:
            await self._client.redis.aclose()
            self._client = None

    def _is_async(self, delivery: Delivery) -> bool:
        task = self.find_task(delivery.claim.kind)
        return task is not None and iscoroutinefunction(task.original_func)

    @override
    async def kick(self, message: BrokerMessage) -> None:
        """Enqueue under a fresh delivery id: a retry has its task's id, and is another message."""
        labels = message.labels
        await kick(
            self.client,
            str(labels.get("queue_name") or self.queue_name),
            Offer(uuid4().hex, message.task_name, message.message),
            delay=_delay(labels.get("delay")),
            extra={"task_id": message.task_id, "labels": _as_json(labels)},
        )

    @override
    async def listen(self) -> AsyncGenerator[bytes | AckableMessage]:
        """One message for each one that is asked for: nothing waits here while others are idle."""
        while True:
            for delivery in await self.worker.source.take(1):
                yield self.as_message(delivery)

    def as_message(self, delivery: Delivery) -> AckableMessage:
        """What taskiq's receiver is given for a delivery."""
        acknowledge = partial(self.worker.ledger.acknowledge, delivery)
        # Validation would copy the bytes, and with them forget whose they are.
        return AckableMessage.model_construct(data=_Letter.of(delivery), ack=acknowledge)


def _made_up_pod() -> str:
    """Processes of one `taskiq worker` have the same parent."""
    return f"{socket.gethostname()}-{os.getppid()}"


def _as_json(labels: Mapping[str, Any]) -> str:
    return msgspec.json.encode(labels, enc_hook=str).decode()


def _delay(label: object) -> timedelta:
    if label is None:
        return timedelta(0)
    try:
        return max(timedelta(0), timedelta(seconds=float(str(label))))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"the label delay must be a number of seconds, not {label!r}") from error


class _Letter(bytes):
    """A message's bytes, which know their delivery."""

    delivery: Delivery

    @classmethod
    def of(cls, delivery: Delivery) -> "_Letter":
        letter = cls(delivery.claim.body)
        letter.delivery = delivery
        return letter


class _NotingFormatter(TaskiqFormatter):
    """The application's formatter, noting what becomes of each delivery.

    Reading a message is the first thing that a callback does, whoever's receiver it belongs to.
    """

    def __init__(self, inner: TaskiqFormatter, broker: LeasedStreamBroker) -> None:
        self._inner = inner
        self._broker = broker

    @override
    def dumps(self, message: TaskiqMessage) -> BrokerMessage:
        return self._inner.dumps(message)

    @override
    def loads(self, message: bytes) -> TaskiqMessage:
        if not isinstance(message, _Letter):
            return self._inner.loads(message)
        delivery = message.delivery
        callback = asyncio.current_task()
        if callback is not None:
            self._broker.worker.ledger.start(delivery, callback)
        try:
            loaded = self._inner.loads(bytes(message))
        except Exception as error:
            delivery.defect = f"It can't be read ({type(error).__name__})."
            raise
        if self._broker.find_task(loaded.task_name) is None:
            delivery.defect = "It names another task inside than outside."
        return loaded


class LeasedReceiver(Receiver):
    """Claims as many messages at once as there are free slots, and acknowledges them together.

    Middlewares, dependencies, results and acknowledge types are taskiq's own. Slots are
    `--max-async-tasks`; `--max-prefetch` means nothing here.
    """

    def __init__(self, broker: AsyncBroker, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - taskiq's own
        if not isinstance(broker, LeasedStreamBroker):
            raise TypeError("LeasedReceiver needs a LeasedStreamBroker")
        super().__init__(broker, *args, **kwargs)
        self._leased = broker
        self._callbacks: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        # Without a limit everything that waits would be taken at once, and others be idle.
        self.slots = self.sem._value if self.sem is not None else UNLIMITED  # noqa: SLF001 - jitter is in there
        broker.slots = self.slots
        self._left = self.max_tasks_to_execute or math.inf

    @override
    async def listen(self, finish_event: asyncio.Event) -> None:
        """Run messages until the event, then wait for what runs."""
        if self.run_startup:
            await self.broker.startup()
        self._leased.worker.slots = self.slots
        while not finish_event.is_set() and self._left > 0:
            deliveries = await unless(finish_event, self._take())
            for delivery in deliveries or ():
                self._start(delivery)
        if self._callbacks:
            await asyncio.wait(self._callbacks, timeout=self.wait_tasks_timeout)
        if self.on_exit is not None:
            self.on_exit(self)

    async def _take(self) -> list[Delivery]:
        while len(self._callbacks) >= self.slots:
            self._freed.clear()
            await self._freed.wait()
        room = min(self.slots - len(self._callbacks), self._left)
        return await self._leased.worker.source.take(int(room))

    def _start(self, delivery: Delivery) -> None:
        self._left -= 1
        callback = asyncio.create_task(self.callback(self._leased.as_message(delivery)))
        self._callbacks.add(callback)
        callback.add_done_callback(self._ended)

    def _ended(self, callback: asyncio.Task[None]) -> None:
        self._callbacks.discard(callback)
        self._freed.set()
        if not callback.cancelled() and (error := callback.exception()) is not None:
            log.error("the callback of a task failed", exc_info=error)
