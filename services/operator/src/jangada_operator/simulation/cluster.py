"""The cluster of a simulation: replicas start, take jobs in turn, drain and end."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, Protocol

from jangada_operator.simulation.trace import Trace
from jangada_queue.policy.observation import Running, Stage
from jangada_queue.rates import DecayedRate
from jangada_queue.service_times import ServiceTimes

GENERATION: Final = 300.0
"""As queues keep service times: two generations of so many seconds."""

KIND: Final = "job"
ENDLESS: Final = float("inf")
LONGEST_END: Final = 4 * 3600.0
"""After the last arrival a run goes on until all have ended, but not for longer than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the cluster is like. Times are in seconds.

    A replica takes `start` until it takes its first job. One that is told to end while it works
    has `grace`. `look` is how often an autoscaler of ours looks; `proof` how long a drained replica
    must have been asked before it can be proven empty, and again until it is gone.
    """

    slots: int = 10
    start: float = 5.0
    grace: float = 30.0
    look: float = 1.0
    proof: float = 3.0


class Pod:
    """A replica, which policies see as a `Replica`."""

    __slots__ = (
        "_cluster",
        "born",
        "drained_at",
        "ends",
        "epoch",
        "id",
        "jobs",
        "ready_at",
        "slots",
        "stage",
    )

    def __init__(self, cluster: "Cluster", number: int) -> None:
        self._cluster = cluster
        self.id = f"{number:06}"
        self.born = cluster.now
        self.ready_at = cluster.now + cluster.terms.start
        self.slots = 0
        self.stage = Stage.STARTING
        self.jobs: dict[int, float] = {}
        self.drained_at = ENDLESS
        self.ends = ENDLESS
        self.epoch = 0

    @property
    def age(self) -> float:
        return self._cluster.now - self.born

    @property
    def held(self) -> int:
        return len(self.jobs)

    @property
    def running(self) -> list[Running]:
        now = self._cluster.now
        return [Running(KIND, now - since) for since in self.jobs.values()]

    @property
    def drained_for(self) -> float:
        return max(0.0, self._cluster.now - self.drained_at)


@dataclass(slots=True)
class Outcome:
    """What became of a trace."""

    waits: list[float] = field(default_factory=list)
    """Of each job, until its first start; endless for one that never started."""
    pod_seconds: float = 0.0
    interrupted: int = 0
    sizes: list[tuple[float, int]] = field(default_factory=list)
    """The number of replicas that serve, each time that it changed."""
    busy: list[tuple[float, int, int]] = field(default_factory=list)
    """At each look: jobs that run, and that wait."""


class Autoscaler(Protocol):
    """Who decides, every so often."""

    name: str
    interval: float

    def look(self, cluster: "Cluster") -> None:
        """See how the cluster is, and tell it what to do."""
        ...


class Cluster:
    """One run of a trace."""

    def __init__(self, trace: Trace, terms: Terms, size: int = 0) -> None:
        self.trace = trace
        self.terms = terms
        self.now = 0.0
        self.pods: dict[str, Pod] = {}
        self.replicas = 0
        self.waiting: deque[int] = deque()
        self.arrived = 0
        self.outcome = Outcome(waits=[ENDLESS] * len(trace.arrivals))
        self.rate = DecayedRate()
        self.services = (ServiceTimes(), ServiceTimes())
        self._turned = 0.0
        self._known: ServiceTimes | None = None
        self._free: deque[tuple[Pod, int]] = deque()
        self._events: list[tuple[float, int, str, Pod, int]] = []
        self._count = 0
        self._numbers = 0
        self.in_flight = 0
        for _ in range(size):
            self._ready(self._create())

    # What autoscalers see.

    def known_service(self) -> ServiceTimes:
        """Service times of the last five to ten minutes."""
        if self._known is None:
            self._known = ServiceTimes()
            for each in self.services:
                self._known.merge(each)
        return self._known

    # What autoscalers do.

    def scale_up(self, replicas: int) -> None:
        while self.replicas < replicas:
            self._create()

    def scale_down(self, pods: Iterable[Pod]) -> None:
        """Delete these, as a ReplicaSet does: they have their grace to finish what they run."""
        for pod in pods:
            self.replicas -= 1
            self._stop_claiming(pod)
            pod.stage = Stage.TERMINATING
            pod.ends = self.now + (self.terms.grace if pod.jobs else 0.0)
            self._push(pod.ends, "end", pod)
        self._note_size()

    def drain(self, ids: Iterable[str]) -> None:
        for pod in map(self.pods.__getitem__, ids):
            if pod.stage in {Stage.STARTING, Stage.READY}:
                self._stop_claiming(pod)
                pod.stage = Stage.DRAINING
                pod.drained_at = self.now

    def undrain(self, ids: Iterable[str]) -> None:
        for pod in map(self.pods.__getitem__, ids):
            if pod.stage is Stage.DRAINING:
                pod.drained_at = ENDLESS
                pod.stage = Stage.READY if pod.slots else Stage.STARTING
                self._offer(pod, pod.slots - len(pod.jobs))

    def commit_empty(self) -> None:
        """As the operator does: who is proven empty goes, the same time later again."""
        proof = self.terms.proof
        gone = []
        for pod in list(self.pods.values()):
            if pod.stage is Stage.DRAINING and not pod.jobs and pod.drained_for >= proof:
                pod.stage = Stage.COMMITTED
                pod.drained_at = self.now
            elif pod.stage is Stage.COMMITTED and pod.drained_for >= proof:
                gone.append(pod)
        if gone:
            self.scale_down(gone)

    # The run.

    def run(self, autoscaler: Autoscaler) -> Outcome:
        arrivals = self.trace.arrivals
        events, count, following = self._events, len(arrivals), 0
        look = 0.0
        while True:
            arrival = arrivals[following] if following < count else ENDLESS
            event = events[0][0] if events else ENDLESS
            self.now = min(arrival, event, look)
            if self.now == event:
                _, _, what, pod, job = heappop(events)
                self._happen(what, pod, job)
            elif self.now == arrival:
                self._arrive(following)
                following += 1
            else:
                if self._is_over(following):
                    break
                self._look(autoscaler)
                look += autoscaler.interval
        for pod in list(self.pods.values()):
            self._gone(pod)
        return self.outcome

    def _is_over(self, following: int) -> bool:
        """The whole trace has passed and all its jobs have ended, or nobody will run them."""
        if self.now < self.trace.seconds or following < len(self.trace.arrivals):
            return False
        is_done = not self.waiting and not self.in_flight
        return is_done or self.now > self.trace.seconds + LONGEST_END

    def _look(self, autoscaler: Autoscaler) -> None:
        self._turn_service()
        self.rate.see(self.arrived, self.now)
        autoscaler.look(self)
        self.outcome.busy.append((self.now, self.in_flight, len(self.waiting)))

    def _happen(self, what: str, pod: Pod, job: int) -> None:
        if what == "ready":
            if pod.stage is Stage.STARTING or pod.stage is Stage.DRAINING:
                self._ready(pod)
        elif what == "done":
            if job in pod.jobs:
                self._done(pod, job)
        else:
            self._end(pod)

    def _arrive(self, job: int) -> None:
        self.arrived += 1
        if not self.waiting and (pod := self._take()) is not None:
            self._start(pod, job)
        else:
            self.waiting.append(job)

    def _start(self, pod: Pod, job: int) -> None:
        waits = self.outcome.waits
        if waits[job] == ENDLESS:
            waits[job] = self.now - self.trace.arrivals[job]
        pod.jobs[job] = self.now
        self.in_flight += 1
        self._push(self.now + self.trace.services[job], "done", pod, job)

    def _done(self, pod: Pod, job: int) -> None:
        seconds = self.now - pod.jobs.pop(job)
        self.in_flight -= 1
        self.services[0].add(seconds, KIND)
        self._known = None
        if pod.stage is Stage.READY:
            self._offer(pod, 1)
        elif pod.stage is Stage.TERMINATING and not pod.jobs:
            self._end(pod)

    def _ready(self, pod: Pod) -> None:
        pod.slots = self.terms.slots
        if pod.stage is Stage.STARTING:
            pod.stage = Stage.READY
            self._offer(pod, pod.slots)

    def _end(self, pod: Pod) -> None:
        """Its grace is over, or it has nothing left to do."""
        if pod.id not in self.pods:
            return
        interrupted = list(pod.jobs)
        self.outcome.interrupted += len(interrupted)
        self.in_flight -= len(interrupted)
        pod.jobs.clear()
        self.waiting.extendleft(reversed(interrupted))
        self._gone(pod)
        self._assign()

    def _gone(self, pod: Pod) -> None:
        self.outcome.pod_seconds += self.now - pod.born
        del self.pods[pod.id]

    def _create(self) -> Pod:
        self._numbers += 1
        pod = Pod(self, self._numbers)
        self.pods[pod.id] = pod
        self.replicas += 1
        self._push(pod.ready_at, "ready", pod)
        self._note_size()
        return pod

    def _stop_claiming(self, pod: Pod) -> None:
        pod.epoch += 1

    def _offer(self, pod: Pod, slots: int) -> None:
        for _ in range(slots):
            self._free.append((pod, pod.epoch))
        self._assign()

    def _take(self) -> Pod | None:
        """The replica whose slot has been free for the longest."""
        while self._free:
            pod, epoch = self._free.popleft()
            if epoch == pod.epoch:
                return pod
        return None

    def _assign(self) -> None:
        while self.waiting and (pod := self._take()) is not None:
            self._start(pod, self.waiting.popleft())

    def _turn_service(self) -> None:
        if self.now - self._turned > GENERATION:
            self._turned = self.now
            self.services = (ServiceTimes(), self.services[0])
            self._known = None

    def _push(self, at: float, what: str, pod: Pod, job: int = -1) -> None:
        self._count += 1
        heappush(self._events, (at, self._count, what, pod, job))

    def _note_size(self) -> None:
        self.outcome.sizes.append((self.now, self.replicas))


def victims(pods: Sequence[Pod], count: int) -> list[Pod]:
    """Whom a ReplicaSet deletes that knows nothing of jobs: who isn't ready, then the youngest."""
    ranked = sorted(pods, key=lambda pod: (pod.stage is not Stage.STARTING, -pod.born, pod.id))
    return ranked[:count]
