"""Who is served next, and by whom: jobs wait in turn, and so do free slots."""

from collections import deque
from collections.abc import Sequence

from jangada_operator.simulation.pods import Pod


class Line:
    """The jobs that wait and the slots that are free, each in the order in which they came.

    A slot is offered for a pod's epoch: a pod that is withdrawn begins another, and what it had
    offered before counts no more.
    """

    __slots__ = ("_free", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[int] = deque()
        self._free: deque[tuple[Pod, int]] = deque()

    def offer(self, pod: Pod, slots: int) -> None:
        self._free.extend([(pod, pod.epoch)] * slots)

    @staticmethod
    def withdraw(pod: Pod) -> None:
        pod.epoch += 1

    def put_back(self, jobs: Sequence[int]) -> None:
        """Before all others, in their order."""
        self.waiting.extendleft(reversed(jobs))

    def pair(self) -> tuple[Pod, int] | None:
        """The next job, with the replica whose slot was free for the longest, if there are both."""
        if not self.waiting:
            return None
        while self._free:
            pod, epoch = self._free.popleft()
            if epoch == pod.epoch:
                return pod, self.waiting.popleft()
        return None
