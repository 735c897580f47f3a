"""The embedded servers under supervision: started together, started again when they die."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from jangada.errors import JangadaError
from jangada.local.children import Backoff, reason
from jangada.local.output import Output
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey

SETTINGS = {"postgres": "JANGADA_DATABASE__URL", "valkey": "JANGADA_VALKEY__URL"}


async def uninterrupted(work: Callable[[], None]) -> None:
    """Run in a thread. A cancellation waits for it: half a start cannot be undone."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class Kept:
    """A server that is kept running from `start` to `stop`."""

    def __init__(
        self, name: str, server: EmbeddedPostgres | EmbeddedValkey, output: Output
    ) -> None:
        self.name = name
        self.setting = SETTINGS[name]
        self.server = server
        self._output = output
        self._stopping = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._backoff = Backoff()

    async def start(self) -> None:
        self._output.say("starting", process=self.name)
        await self._do(self.server.start)
        self._keeper = asyncio.create_task(self._keep(), name=f"keeps {self.name}")

    async def stop(self) -> None:
        """Return when no process of the server is left."""
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await asyncio.to_thread(self.server.stop)
        if self._keeper is not None:
            self._output.say("stopped", process=self.name)

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            born = time.monotonic()
            code = await asyncio.wrap_future(self.server.child.ended)
            why = reason(code)
            while not await self._start_again(why, time.monotonic() - born):
                why, born = "did not start", time.monotonic()

    async def _start_again(self, why: str, lived: float) -> bool:
        pause = self._backoff.after(lived)
        self._output.say("exited", process=self.name, reason=why, restart_in=pause)
        await asyncio.sleep(pause)
        with suppress(JangadaError, OSError):
            await self._do(self.server.restart)
            return True
        return False

    async def _do(self, start: Callable[[], None]) -> None:
        begun = time.monotonic()
        await uninterrupted(start)
        seconds = round(time.monotonic() - begun, 1)
        self._output.say("started", process=self.name, seconds=seconds)
