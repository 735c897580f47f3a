"""What became of a trace, and what can be told from it."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcome:
    """The result of a run.

    `waits` has the seconds until each job's first start, endless for one that never started.
    `starts` counts all starts: one for each job, and one more each time that it was interrupted.
    `sizes` are the numbers of replicas that serve, or will when they are ready, each with the
    moment from which on it was so. `ended_at` is when the run was over: pods are counted until
    then.
    """

    waits: list[float]
    starts: int = 0
    interrupted: int = 0
    pod_seconds: float = 0.0
    ended_at: float = 0.0
    sizes: list[tuple[float, int]] = field(default_factory=list)

    def note_size(self, at: float, size: int) -> None:
        """Only changes are kept, and of several at one moment the last."""
        if self.sizes and self.sizes[-1][0] == at:
            self.sizes.pop()
        if not self.sizes or self.sizes[-1][1] != size:
            self.sizes.append((at, size))

    def size_at(self, moments: Sequence[float]) -> list[int]:
        times = [at for at, _ in self.sizes]
        found = (bisect_right(times, moment) for moment in moments)
        return [self.sizes[index - 1][1] if index else 0 for index in found]
