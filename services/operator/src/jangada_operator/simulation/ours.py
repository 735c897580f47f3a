"""Our policy, as the operator applies it."""

from bisect import bisect_right
from typing import Final

from jangada_operator.simulation.cluster import Cluster
from jangada_queue.policy.decide import decide
from jangada_queue.policy.history import History
from jangada_queue.policy.observation import Observation, Signals
from jangada_queue.policy.wanted import Wanted

DUE: Final = (10.0, 60.0)


class Ours:
    """Decides every second as `decide` says, and does so. Who goes was drained and empty before."""

    interval: Final = 1.0

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.initial = wanted.least
        self._history = History()

    def look(self, cluster: Cluster) -> None:
        cluster.remove_empty()
        seen = Observation(
            replicas=cluster.replicas,
            pool=list(cluster.pods.values()),
            signals=_signals(cluster),
        )
        decision = decide(self.wanted, seen, self._history, cluster.now)
        self._history = decision.history
        cluster.undrain(decision.undrain)
        cluster.drain(decision.drain)
        cluster.scale_up(decision.replicas)


def _signals(cluster: Cluster) -> Signals:
    announced, now, learned = cluster.trace.announced, cluster.now, cluster.learned
    passed = bisect_right(announced, now)
    due = [(seconds, bisect_right(announced, now + seconds) - passed) for seconds in DUE]
    return Signals(
        backlog=len(cluster.waiting),
        in_flight=cluster.in_flight,
        arrived=cluster.arrived,
        arrival_rate=learned.arrival_rate,
        oldest_wait=_oldest_wait(cluster),
        due_soon=due if announced else (),
        service=learned.service(),
        kinds=learned.service().means(),
    )


def _oldest_wait(cluster: Cluster) -> float:
    if not cluster.waiting:
        return 0.0
    return cluster.now - cluster.trace.arrivals[cluster.waiting[0]]
