"""The worker as taskiq sees it: a broker that hands over granted jobs, and one task that runs them.

A message reaches taskiq's receiver after its grant, so there is nothing left to acknowledge: the
lease is the beat of the parent. What is handed over is only a key; the job itself stays here.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Executor
from typing import Final, override

from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq.abc.formatter import TaskiqFormatter
from taskiq.message import TaskiqMessage
from taskiq.receiver import Receiver

from jangada_queue.patience import unless
from jangada_worker.executor import Execution

TASK: Final = "jangada.run"


class NotForPublishing(TypeError):
    """Jobs are rows: they are enqueued in PostgreSQL, never through this broker."""


class KeyFormatter(TaskiqFormatter):
    """A message is the key of what was handed over, and no more.

    (Nothing is dumped here: taskiq asks a formatter for both.)
    """

    @override
    def dumps(self, message: TaskiqMessage) -> BrokerMessage:
        return BrokerMessage(
            task_id=message.task_id,
            task_name=message.task_name,
            message=message.task_id.encode(),
            labels={},
        )

    @override
    def loads(self, message: bytes) -> TaskiqMessage:
        key = message.decode()
        return TaskiqMessage(task_id=key, task_name=TASK, labels={}, args=[key], kwargs={})


class JobBroker(AsyncBroker):
    """Keeps what was granted until a receiver asks for it."""

    def __init__(self, run: Callable[[Execution], Awaitable[None]]) -> None:
        super().__init__()
        self.is_worker_process = True
        self.formatter = KeyFormatter()
        self._granted: dict[str, Execution] = {}
        self._handed_over: dict[str, Execution] = {}
        self._has_some = asyncio.Event()

        async def start(key: str) -> None:
            await run(self._handed_over.pop(key))

        self.register_task(start, task_name=TASK)

    def put(self, execution: Execution) -> None:
        """Have the receiver run a granted job."""
        self._granted[execution.job.key] = execution
        self._has_some.set()

    def take_back(self) -> list[Execution]:
        """What the receiver has not asked for; it is the caller's again."""
        executions = list(self._granted.values())
        self._granted.clear()
        return executions

    async def take(self) -> list[bytes]:
        """The messages of all that was granted, once there is any."""
        while not self._granted:
            self._has_some.clear()
            await self._has_some.wait()
        keys = [key.encode() for key in self._granted]
        self._handed_over.update(self._granted)
        self._granted.clear()
        return keys

    @override
    async def kick(self, message: BrokerMessage) -> None:
        raise NotForPublishing(f"{message.task_name} is to be enqueued as a job.")

    @override
    async def listen(self) -> AsyncGenerator[bytes | AckableMessage]:
        """For taskiq's own receiver; ours calls `take`."""
        while True:
            for message in await self.take():
                yield message


class JobReceiver(Receiver):
    """Starts at once what was granted: it has its slots already.

    (Taskiq's own asks for a message at a time, through three tasks and two queues each.)
    """

    def __init__(self, broker: JobBroker, executor: Executor, *, slots: int) -> None:
        # The task has one parameter, which isn't from outside.
        super().__init__(broker, executor, validate_params=False, max_async_tasks=slots)
        self._jobs = broker

    @override
    async def listen(self, finish_event: asyncio.Event) -> None:
        """Run what is granted until the event, then wait for what runs."""
        async with asyncio.TaskGroup() as running:
            while not finish_event.is_set():
                for message in await unless(finish_event, self._jobs.take()) or ():
                    running.create_task(self.callback(message))
