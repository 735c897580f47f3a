"""One child process as its parent sees it."""

import math
import socket
import time
from collections.abc import Callable
from typing import Self
from uuid import UUID

from jangada.jobs.delivery.kinds import KindFacts
from jangada_queue.workers import RunningWork
from jangada_worker.forkserver import Forked, ForkServer
from jangada_worker.link import (
    Farewell,
    Identity,
    Link,
    Observations,
    Ready,
    Report,
    ToChild,
    ToParent,
    parent_end,
)


class Child:
    """A running worker process, and the link to it."""

    def __init__(self, process: Forked, link: Link[ToParent, ToChild], pod: str) -> None:
        self.process = process
        self.pod = pod
        self.born = time.monotonic()
        self.worker: UUID | None = None
        self.kinds: list[KindFacts] = []
        self.timeouts: dict[str, float] = {}
        self._heard_at = time.monotonic()
        self._declared_dead_at = -math.inf
        self.running: list[RunningWork] = []
        self.claiming = 0
        self.drain = ""
        self.is_ready = False
        self.said_farewell = False
        self._link = link

    @classmethod
    async def spawn(cls, server: ForkServer, pod: str) -> Self:
        """Start a process; it dies with this one. Raises `OSError`, or `ForkServerLost`."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await server.spawn(theirs, pod)
            except BaseException:
                ours.close()
                raise
        return cls(process, await parent_end(ours), pod)

    @property
    def pid(self) -> int:
        return self.process.pid

    def identify(self, worker: UUID) -> None:
        """Whoever had a name was declared dead under it, and what it runs was handed on."""
        if self.worker is not None:
            self._declared_dead_at = time.monotonic()
        self.worker = worker
        self._link.send(Identity(worker))

    def send(self, message: ToChild) -> None:
        self._link.send(message)

    async def live(self, observe: Callable[[Observations], None], ready: Callable[[], None]) -> int:
        """Hear what the child says until it ends; answers its exit code."""
        async for message in self._link.messages():
            match message:
                case Ready():
                    self.kinds, self.timeouts = message.kinds, message.timeouts
                    self.is_ready = True
                    ready()
                case Report():
                    self.running, self.claiming = message.running, message.claiming
                    self.drain = message.drain
                    self._heard_at = time.monotonic()
                case Observations():
                    observe(message)
                case Farewell():
                    self.said_farewell = True
        self._link.close()
        return await self.process.wait()

    @property
    def silent_seconds(self) -> float:
        """Since it last said what runs, which it does twice a second while its loop turns."""
        return time.monotonic() - self._heard_at

    @property
    def deaf_seconds(self) -> float:
        """Since it was declared dead, where it has said nothing since then; else 0."""
        is_deaf = self._declared_dead_at > self._heard_at
        return time.monotonic() - self._declared_dead_at if is_deaf else 0.0

    def kill(self) -> None:
        self.process.kill()
