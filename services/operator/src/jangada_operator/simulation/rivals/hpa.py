"""The arithmetic of Kubernetes' HorizontalPodAutoscaler, and one that scales by CPU.

The rules are those of https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
with the defaults of kube-controller-manager and of `autoscaling/v2`; where the page leaves
something open, those of `pkg/controller/podautoscaler/{horizontal,replica_calculator}.go`.
"""

import math
from collections.abc import Sequence
from typing import Final

from jangada_operator.simulation.cluster import Cluster, victims
from jangada_operator.simulation.pods import Pod
from jangada_queue.policy.observation import Stage
from jangada_queue.policy.wanted import Wanted

SYNC: Final = 15.0
"""`--horizontal-pod-autoscaler-sync-period`."""

TOLERANCE: Final = 0.1
"""`--horizontal-pod-autoscaler-tolerance`: so near to the target nothing is changed."""

STABILIZATION: Final = 300.0
"""`--horizontal-pod-autoscaler-downscale-stabilization`."""

UP_PODS: Final = 4
UP_FACTOR: Final = 2
"""The default `behavior.scaleUp`: by four pods or by 100 % in 15 s, whichever is more."""

TARGET_CPU: Final = 70
"""Percent of what is requested; the walkthrough's 50 would be costlier still."""


def for_average_value(metric: float, target: float, replicas: int) -> int:
    """Of an external metric whose target is an `AverageValue` (`GetExternalPerPodMetricReplicas`).

    `metric` is the value in all, `replicas` how many there are, at least one.
    """
    ratio = metric / (target * replicas)
    if abs(1 - ratio) <= TOLERANCE:
        return replicas
    return math.ceil(metric / target)


def for_utilization(used: Sequence[float], unready: int, target: int, replicas: int) -> int:
    """Of a resource (`GetResourceReplicas`): `used` has the part that each ready pod uses.

    Pods that aren't ready are left out, but where that would enlarge the pool they count as idle.
    """
    if not used:
        return replicas
    ratio = int(100 * sum(used) / len(used)) / target
    if ratio <= 1 or not unready:
        is_near = abs(1 - ratio) <= TOLERANCE
        return replicas if is_near else math.ceil(ratio * len(used))
    counted = len(used) + unready
    diluted = int(100 * sum(used) / counted) / target
    if diluted <= 1 + TOLERANCE:
        return replicas
    return max(replicas, math.ceil(diluted * counted))


class Behavior:
    """What becomes of a recommendation (`behavior` of `autoscaling/v2`, by default).

    The pool is enlarged at once, by no more than the default policies allow in one sync, and
    reduced to the highest recommendation of the last five minutes.
    """

    def __init__(self) -> None:
        self._recommended: list[tuple[float, int]] = []

    def size(self, recommended: int, current: int, now: float, *, least: int, most: int) -> int:
        """The size to set; called once in a sync."""
        if not self._recommended:
            self._recommended.append((now, current))
        since = now - STABILIZATION
        recent = [each for each in self._recommended if each[0] > since]
        self._recommended = [*recent, (now, recommended)]
        highest = max(size for _, size in self._recommended)
        stable = max(recommended, min(current, highest))
        allowed = max(current + UP_PODS, current * UP_FACTOR)
        return max(least, min(stable, allowed, most))


class CpuAutoscaler:
    """An HPA that keeps the CPU of workers at 70 %: busy slots stand for CPU.

    That flatters it: a job that waits for a database uses a slot and no CPU. It keeps one replica
    at least, as an HPA does.
    """

    interval: Final = SYNC

    def __init__(self, wanted: Wanted) -> None:
        self._least = max(1, wanted.least)
        self._most = wanted.most
        self.initial = self._least
        self._behavior = Behavior()
        self._busy: dict[str, float] = {}

    def look(self, cluster: Cluster) -> None:
        used = self._used(cluster)
        if cluster.now == 0:
            return
        unready = len(cluster.serving()) - len(used)
        wish = for_utilization(used, unready, TARGET_CPU, cluster.replicas)
        size = self._behavior.size(
            wish, cluster.replicas, cluster.now, least=self._least, most=self._most
        )
        resize(cluster, size)

    def _used(self, cluster: Cluster) -> list[float]:
        """Averages since the last sync, of those that were ready all the while.

        The others aren't ready yet for the HPA: it wants a whole window of metrics of them.
        """
        before, self._busy = self._busy, {}
        used = []
        for pod in cluster.pods.values():
            if pod.stage is not Stage.READY:
                continue
            self._busy[pod.id] = pod.busy_seconds
            if pod.id in before:
                used.append((pod.busy_seconds - before[pod.id]) / (SYNC * pod.slots))
        return used


def resize(cluster: Cluster, size: int) -> None:
    """As a Deployment does: it starts pods, or deletes some without regard to their jobs."""
    cluster.scale_up(size)
    if size < cluster.replicas:
        leaving = victims(_there(cluster), cluster.replicas - size)
        cluster.scale_down(leaving)


def _there(cluster: Cluster) -> list[Pod]:
    return [pod for pod in cluster.pods.values() if pod.stage is not Stage.TERMINATING]
