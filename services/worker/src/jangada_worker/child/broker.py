"""The worker as taskiq sees it: a broker that hands over granted jobs, and one task that runs them.

A message reaches taskiq's receiver after its grant, so there is nothing left to acknowledge: the
lease is the beat of the parent. What is handed over is only a key; the job itself stays here.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, override

from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq.message import TaskiqMessage

from jangada_worker.executor import Execution

TASK: Final = "jangada.run"


class NotForPublishing(TypeError):
    """Jobs are rows: they are enqueued in PostgreSQL, never through this broker."""


class JobBroker(AsyncBroker):
    """Feeds taskiq's receiver. The receiver asks for a message only when it can run one."""

    def __init__(self, run: Callable[[Execution], Awaitable[None]]) -> None:
        super().__init__()
        self.is_worker_process = True
        self._granted: asyncio.Queue[Execution] = asyncio.Queue()
        self._handed_over: dict[str, Execution] = {}

        async def start(key: str) -> None:
            await run(self._handed_over.pop(key))

        self.register_task(start, task_name=TASK)

    def put(self, execution: Execution) -> None:
        """Have the receiver run a granted job."""
        self._granted.put_nowait(execution)

    def take_back(self) -> list[Execution]:
        """What the receiver has not asked for; it is the caller's again."""
        executions = []
        while not self._granted.empty():
            executions.append(self._granted.get_nowait())
        return executions

    @override
    async def kick(self, message: BrokerMessage) -> None:
        raise NotForPublishing(f"{message.task_name} is to be enqueued as a job.")

    @override
    async def listen(self) -> AsyncGenerator[bytes | AckableMessage]:
        while True:
            execution = await self._granted.get()
            # Nothing is awaited between here and the receiver, so nothing can get lost.
            key = execution.job.key
            self._handed_over[key] = execution
            message = TaskiqMessage(
                task_id=key, task_name=TASK, labels={}, args=[], kwargs={"key": key}
            )
            yield self.formatter.dumps(message).message
