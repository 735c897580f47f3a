"""What an autoscaler does, as its Deployment shows it: sizes that it asks for, and pods.

Times are those of `CLOCK_MONOTONIC`, as the ledger's are.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from cluster.api import Api, Object


@dataclass(slots=True)
class Lifetimes:
    """When pods came and went."""

    came: dict[str, float] = field(default_factory=dict)
    went: dict[str, float] = field(default_factory=dict)
    most: int = 0

    def note(self, at: float, there: Collection[str]) -> None:
        """Be told of all that are there now."""
        for uid in there:
            self.came.setdefault(uid, at)
        for uid in self.came.keys() - there:
            self.went.setdefault(uid, at)
        self.most = max(self.most, len(there))

    @property
    def count(self) -> int:
        """Of those that are there."""
        return len(self.came) - len(self.went)

    @property
    def pod_seconds(self) -> float:
        """Endless while one is there."""
        return sum(self.went.get(uid, math.inf) - came for uid, came in self.came.items())

    @property
    def ended_at(self) -> float:
        """When the last one went."""
        return math.inf if self.count else max(self.went.values(), default=0.0)


@dataclass(slots=True)
class Sizes:
    """What the Deployment was asked to have, at each change."""

    changes: list[tuple[float, int]] = field(default_factory=list)

    def note(self, at: float, size: int) -> None:
        if size != self.now:
            self.changes.append((at, size))

    @property
    def now(self) -> int | None:
        return self.changes[-1][1] if self.changes else None

    @property
    def left_zero_at(self) -> float:
        """When more than none was first asked for."""
        return next((at for at, size in self.changes if size), math.inf)


class Watch:
    """Follows the Deployment `name`, and all pods with that label."""

    def __init__(self, api: Api, name: str) -> None:
        self.lifetimes, self.sizes = Lifetimes(), Sizes()
        self.troubles: list[BaseException] = []
        self._api, self._name = api, name
        self._is_stopping = threading.Event()

    def is_empty(self) -> bool:
        """No replica is asked for, and no pod is there."""
        return self.sizes.now == 0 == self.lifetimes.count

    @contextmanager
    def running(self) -> Iterator[None]:
        """Whatever goes wrong meanwhile is in `troubles`."""
        ways: tuple[Callable[[], None], ...] = (self._follow_pods, self._follow_deployment)
        threads = [threading.Thread(target=self._run, args=[way], daemon=True) for way in ways]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_stopping.set()
            for thread in threads:
                thread.join()

    def _run(self, way: Callable[[], None]) -> None:
        try:
            way()
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            self.troubles.append(error)

    def _follow_pods(self) -> None:
        for pods in self._states("pods", selector=f"app={self._name}"):
            self.lifetimes.note(time.monotonic(), pods.keys())

    def _follow_deployment(self) -> None:
        for found in self._states("deployments", name=self._name):
            for each in found.values():
                self.sizes.note(time.monotonic(), each["spec"]["replicas"])

    def _states(
        self, kind: str, *, name: str = "", selector: str = ""
    ) -> Iterator[Mapping[str, Object]]:
        for found in self._api.states(kind, name=name, selector=selector):
            if self._is_stopping.is_set():
                return
            yield found
