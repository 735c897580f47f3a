"""Which worker processes there are to be: each has a number and a task that keeps it running."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any


@dataclass(slots=True)
class Crew:
    """The numbers, which are taken out of `numbers` by whoever ends a process for good."""

    group: asyncio.TaskGroup
    keep: Callable[[int], Coroutine[Any, Any, None]]
    numbers: set[int]
    keepers: set[asyncio.Task[None]] = field(default_factory=set)
    _following: Iterator[int] = field(default_factory=count)

    def start(self) -> None:
        """Have one more, under a number that none had before."""
        number = next(self._following)
        self.numbers.add(number)
        keeper = self.group.create_task(self.keep(number))
        self.keepers.add(keeper)
        keeper.add_done_callback(self.keepers.discard)
