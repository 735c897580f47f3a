"""The cluster of a simulation: replicas start, take jobs in turn, drain and end."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, Protocol

from jangada_operator.simulation.learning import Learned
from jangada_operator.simulation.line import Line
from jangada_operator.simulation.outcome import Outcome
from jangada_operator.simulation.pods import ENDLESS, Clock, Pod
from jangada_operator.simulation.trace import Trace
from jangada_queue.policy.observation import Stage

LONGEST_END: Final = 4 * 3600.0
"""After the last arrival a run goes on until all have ended, but not for longer than this."""

type Happening = Callable[[Pod, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the cluster is like. Times are in seconds.

    A replica takes `start` until it takes its first job. One that is told to end while it works
    has `grace`. `proof` is how long a drained replica of ours must have been asked before it can
    be proven empty, and again until it is gone.
    """

    slots: int = 10
    start: float = 5.0
    grace: float = 30.0
    proof: float = 3.0

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError("a replica needs a slot")
        if min(self.start, self.grace, self.proof) < 0:
            raise ValueError("the cluster's times can't be negative")


class Autoscaler(Protocol):
    """Who decides, every `interval` seconds. `initial` replicas are ready at the beginning."""

    @property
    def interval(self) -> float: ...
    @property
    def initial(self) -> int: ...
    def look(self, cluster: "Cluster") -> None:
        """See how the cluster is, and tell it what to do."""
        ...


class Cluster:
    """One run of one trace.

    Autoscalers see its attributes and call `scale_up`, `scale_down`, `drain`, `undrain` and
    `remove_empty`. `replicas` is the size that was asked for: draining replicas are part of it,
    those that were told to end aren't.
    """

    def __init__(self, trace: Trace, terms: Terms) -> None:
        self.trace = trace
        self.terms = terms
        self.pods: dict[str, Pod] = {}
        self.replicas = 0
        self.arrived = 0
        self.in_flight = 0
        self.learned = Learned()
        self.outcome = Outcome(waits=[ENDLESS] * len(trace.arrivals))
        self._clock = Clock()
        self._line = Line()
        self._events: list[tuple[float, int, Happening, Pod, int]] = []
        self._count = 0
        self._numbers = 0

    @property
    def now(self) -> float:
        return self._clock.now

    @property
    def waiting(self) -> Sequence[int]:
        """The jobs that wait, the next one first."""
        return self._line.waiting

    def serving(self) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.is_serving]

    # The run itself. At one moment replicas come first, then jobs, then the autoscaler.

    def run(self, autoscaler: Autoscaler) -> Outcome:
        for _ in range(autoscaler.initial):
            self._create(0.0)
        arrivals, events, clock = self.trace.arrivals, self._events, self._clock
        count, following, look = len(arrivals), 0, 0.0
        while True:
            arrival = arrivals[following] if following < count else ENDLESS
            event = events[0][0] if events else ENDLESS
            clock.now = min(arrival, event, look)
            if clock.now == event:
                _, _, happen, pod, job = heappop(events)
                happen(pod, job)
            elif clock.now == arrival:
                self._arrive(following)
                following += 1
            elif self._is_over(following):
                return self._ended()
            else:
                self._look(autoscaler)
                look += autoscaler.interval

    def _is_over(self, following: int) -> bool:
        """The whole trace has passed and all its jobs have ended, or nobody will run them."""
        if self.now < self.trace.seconds or following < len(self.trace.arrivals):
            return False
        is_done = not self.waiting and not self.in_flight
        return is_done or self.now > self.trace.seconds + LONGEST_END

    def _look(self, autoscaler: Autoscaler) -> None:
        self.learned.see(self.arrived, self.now)
        autoscaler.look(self)
        self.outcome.note_size(self.now, len(self.serving()))

    def _ended(self) -> Outcome:
        for pod in list(self.pods.values()):
            self._gone(pod)
        self.outcome.ended_at = self.now
        return self.outcome

    # What autoscalers do.

    def scale_up(self, replicas: int) -> None:
        while self.replicas < replicas:
            self._create(self.terms.start)

    def scale_down(self, pods: Iterable[Pod]) -> None:
        """Delete these, as a ReplicaSet does: they have their grace to finish what they run."""
        for pod in pods:
            if pod.stage is Stage.TERMINATING:
                continue
            self.replicas -= 1
            self._line.withdraw(pod)
            pod.stage = Stage.TERMINATING
            if pod.jobs:
                self._push(self.now + self.terms.grace, self._killed, pod)
            else:
                self._gone(pod)

    def drain(self, ids: Iterable[str]) -> None:
        """Those that are named claim nothing from now on."""
        for pod in map(self.pods.__getitem__, ids):
            if pod.is_serving:
                self._line.withdraw(pod)
                pod.stage = Stage.DRAINING
                pod.drained_at = self.now

    def undrain(self, ids: Iterable[str]) -> None:
        """Those that are named claim again; who is committed to go, doesn't."""
        for pod in map(self.pods.__getitem__, ids):
            if pod.stage is Stage.DRAINING:
                pod.drained_at = ENDLESS
                pod.stage = Stage.READY if pod.slots else Stage.STARTING
                self._offer(pod, pod.slots - len(pod.jobs))

    def remove_empty(self) -> None:
        """As the operator does: a drained one that is proven empty is committed, later deleted."""
        proof = self.terms.proof
        gone = []
        for pod in self.pods.values():
            if pod.stage is Stage.DRAINING and not pod.jobs and pod.drained_for >= proof:
                pod.stage = Stage.COMMITTED
                pod.drained_at = self.now
            elif pod.stage is Stage.COMMITTED and pod.drained_for >= proof:
                gone.append(pod)
        self.scale_down(gone)

    # What happens to replicas and jobs.

    def _create(self, start: float) -> Pod:
        self._numbers += 1
        pod = Pod(self.trace, self._clock, self._numbers, ready_at=self.now + start)
        self.pods[pod.id] = pod
        self.replicas += 1
        self._push(pod.ready_at, self._ready, pod)
        return pod

    def _ready(self, pod: Pod, _: int) -> None:
        """It may have been drained, or deleted, while it started."""
        if pod.stage is Stage.TERMINATING or pod.stage is Stage.COMMITTED:
            return
        pod.slots = self.terms.slots
        if pod.stage is Stage.STARTING:
            pod.stage = Stage.READY
            self._offer(pod, pod.slots)

    def _arrive(self, job: int) -> None:
        self.arrived += 1
        self._line.waiting.append(job)
        self._assign()

    def _offer(self, pod: Pod, slots: int) -> None:
        self._line.offer(pod, slots)
        self._assign()

    def _assign(self) -> None:
        while (pair := self._line.pair()) is not None:
            self._start(*pair)

    def _start(self, pod: Pod, job: int) -> None:
        now, outcome = self._clock.now, self.outcome
        if outcome.waits[job] == ENDLESS:
            outcome.waits[job] = now - self.trace.arrivals[job]
        outcome.starts += 1
        pod.jobs[job] = now
        self.in_flight += 1
        self._push(now + self.trace.services[job], self._done, pod, job)

    def _done(self, pod: Pod, job: int) -> None:
        """Unless it was interrupted: a pod that was killed holds nothing."""
        if job not in pod.jobs:
            return
        seconds = self._clock.now - pod.jobs.pop(job)
        pod.worked += seconds
        self.in_flight -= 1
        self.learned.add(self.trace.kind(job), seconds)
        if pod.stage is Stage.READY:
            self._offer(pod, 1)
        elif pod.stage is Stage.TERMINATING and not pod.jobs:
            self._gone(pod)

    def _killed(self, pod: Pod, _: int) -> None:
        """Its grace is over: what it still runs starts over elsewhere."""
        if pod.id not in self.pods:
            return
        interrupted = list(pod.jobs)
        self.outcome.interrupted += len(interrupted)
        self.in_flight -= len(interrupted)
        pod.jobs.clear()
        self._gone(pod)
        self._line.put_back(interrupted)
        self._assign()

    def _gone(self, pod: Pod) -> None:
        self.outcome.pod_seconds += self.now - pod.born
        del self.pods[pod.id]

    def _push(self, at: float, happening: Happening, pod: Pod, job: int = -1) -> None:
        self._count += 1
        heappush(self._events, (at, self._count, happening, pod, job))


def victims(pods: Iterable[Pod], count: int) -> list[Pod]:
    """Whom a ReplicaSet deletes that knows nothing of jobs: who isn't ready, then the youngest."""
    ranked = sorted(pods, key=lambda pod: (pod.stage is not Stage.STARTING, -pod.born, pod.id))
    return ranked[:count]
