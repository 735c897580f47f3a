"""Our policy, as the operator applies it."""

from bisect import bisect_right
from typing import Final

from jangada_operator.simulation.cluster import Cluster
from jangada_queue.policy.decide import Decision, decide
from jangada_queue.policy.history import History
from jangada_queue.policy.observation import Observation, Signals
from jangada_queue.policy.wanted import Wanted

DUE: Final = (10.0, 60.0)


class Ours:
    """Decides as `decide` says, and does so."""

    name = "Jangada"

    def __init__(self, wanted: Wanted, interval: float = 1.0) -> None:
        self.wanted = wanted
        self.interval = interval
        self.history = History()
        self.decisions: list[tuple[float, Decision]] = []

    def look(self, cluster: Cluster) -> None:
        cluster.commit_empty()
        seen = Observation(
            replicas=cluster.replicas,
            pool=list(cluster.pods.values()),
            signals=self._signals(cluster),
        )
        decision = decide(self.wanted, seen, self.history, cluster.now)
        self.history = decision.history
        if not self.decisions or self.decisions[-1][1].size != decision.size:
            self.decisions.append((cluster.now, decision))
        cluster.undrain(decision.undrain)
        cluster.drain(decision.drain)
        cluster.scale_up(decision.replicas)

    @staticmethod
    def _signals(cluster: Cluster) -> Signals:
        announced, now = cluster.trace.announced, cluster.now
        passed = bisect_right(announced, now)
        return Signals(
            backlog=len(cluster.waiting),
            in_flight=cluster.in_flight,
            arrived=cluster.arrived,
            arrival_rate=cluster.rate.per_second,
            oldest_wait=_oldest(cluster),
            due_soon=[(seconds, bisect_right(announced, now + seconds) - passed) for seconds in DUE]
            if announced
            else (),
            service=cluster.known_service(),
        )


def _oldest(cluster: Cluster) -> float:
    if not cluster.waiting:
        return 0.0
    return cluster.now - cluster.trace.arrivals[cluster.waiting[0]]
