"""KEDA 2: its operator switches between none and one, an HPA does the rest.

The rules are those of https://keda.sh/docs/latest/concepts/scaling-deployments/ and
https://keda.sh/docs/latest/reference/scaledobject-spec/, with their defaults: `pollingInterval` 30,
`cooldownPeriod` 300, `minReplicaCount` 0. The HPA is shown the trigger's value as it is at each
sync, because KEDA's metrics server asks the trigger whenever it is asked.
"""

from typing import Final

from jangada_operator.simulation.cluster import Cluster
from jangada_operator.simulation.rivals.hpa import SYNC, Behavior, for_average_value, resize
from jangada_operator.simulation.trace import Trace
from jangada_queue.policy.wanted import Wanted

POLLING: Final = 30.0
COOLDOWN: Final = 300.0

LAG_COUNT: Final = 5.0
"""The documented example's and the default `lagCount`: entries a replica that wait."""

HEADROOM: Final = 0.8
"""An expert leaves a fifth of the slots free: the HPA's tolerance alone would take a tenth."""


class Keda:
    """A ScaledObject with one trigger, whose target is an average for each replica.

    `counts_running` adds what runs to what waits. Between polls and syncs nothing happens; the HPA
    sleeps while there is no replica.
    """

    interval: Final = SYNC

    def __init__(self, wanted: Wanted, *, target: float, counts_running: bool, least: int) -> None:
        self._target = target
        self._counts_running = counts_running
        self._least = max(least, wanted.least)
        self._most = wanted.most
        self.initial = self._least
        self._behavior = Behavior()
        self._active_at = 0.0

    def look(self, cluster: Cluster) -> None:
        metric = float(len(cluster.waiting))
        if self._counts_running:
            metric += cluster.in_flight
        if cluster.now % POLLING == 0:
            self._poll(cluster, is_active=metric > 0)
        if cluster.replicas:
            self._sync(cluster, metric)

    def _poll(self, cluster: Cluster, *, is_active: bool) -> None:
        """What KEDA's operator does: from none to one, and from any number to none."""
        if is_active:
            self._active_at = cluster.now
            cluster.scale_up(min(1, self._most))
        elif not self._least and cluster.now - self._active_at > COOLDOWN:
            resize(cluster, 0)

    def _sync(self, cluster: Cluster, metric: float) -> None:
        wish = for_average_value(metric, self._target, cluster.replicas)
        least = max(1, self._least)
        size = self._behavior.size(
            wish, cluster.replicas, cluster.now, least=least, most=self._most
        )
        resize(cluster, size)


def as_documented(wanted: Wanted) -> Keda:
    """The example of https://keda.sh/docs/latest/scalers/redis-streams/: `lagCount: "5"`.

    The lag is what waits, and doesn't count what runs. `activationLagCount` is its default 0: with
    the example's 3 a job that comes alone would wait for others.
    """
    return Keda(wanted, target=LAG_COUNT, counts_running=False, least=0)


def as_tuned(wanted: Wanted, trace: Trace, slots: int) -> Keda:
    """As somebody would set it who knows the true mean service time.

    It counts what waits and what runs (as a query of one's own can), keeps one replica, and its
    target is what a replica can start within the objective, less some headroom; at least its slots.
    """
    mean = trace.work / max(1, len(trace.services))
    within = wanted.start_within.total_seconds()
    turns = max(1.0, within / mean) if mean else 1.0
    return Keda(wanted, target=HEADROOM * slots * turns, counts_running=True, least=1)
