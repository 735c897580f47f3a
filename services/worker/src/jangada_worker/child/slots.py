"""How many jobs may start now."""

import asyncio


class Slots:
    """A count of free places that can be waited for. For one event loop."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken = 0
        self._changed = asyncio.Event()

    @property
    def free(self) -> int:
        return max(0, self.capacity - self.taken)

    def take(self, count: int = 1) -> None:
        self.taken += count

    def release(self, count: int = 1) -> None:
        self.taken -= count
        self._changed.set()

    async def wait_free(self, at_least: int = 1) -> int:
        """Return how many are free, once there are so many."""
        while self.free < at_least:
            await self._wait_for_change()
        return self.free

    async def wait_idle(self) -> None:
        """Return once nothing runs."""
        while self.taken > 0:
            await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
