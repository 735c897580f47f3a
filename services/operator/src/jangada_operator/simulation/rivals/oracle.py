"""An autoscaler that knows the trace: what our policy could reach at best, in practice.

At each look it sees every job that will arrive within its horizon and how long each will take. It
asks for the fewest replicas with which all of them start within the objective, as an exact run of
the line shows (first come, first served, by the slot that is free first). It starts replicas as
late as that allows, and lets them go without proof as soon as they won't be needed before another
could be started.

It is no proof of a lower bound: it looks no further than its horizon, prefers few replicas to few
pod-seconds, and chooses who drains by what runs now. `Trace.work` over the slots is a bound, which
nobody can reach who starts jobs in time.
"""

import math
from collections.abc import Iterator, Sequence
from heapq import heapify, heapreplace
from typing import Final

from jangada_operator.simulation.cluster import Cluster
from jangada_operator.simulation.pods import ENDLESS, Pod
from jangada_queue.policy.observation import Stage
from jangada_queue.policy.wanted import Wanted

HAIR: Final = 1e-9


class Oracle:
    """Sees `2 * start + within` seconds ahead."""

    interval: Final = 1.0

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.initial = wanted.least
        self._passed = 0

    def look(self, cluster: Cluster) -> None:
        cluster.scale_down(_idle(cluster))
        plan = self._plan(cluster)
        serving = len(plan.serving)
        size = max(self._wanted.least, min(plan.fewest(serving), self._wanted.most))
        if size < serving:
            cluster.drain(pod.id for pod in plan.serving[size:])
            return
        back = plan.draining[: size - serving]
        cluster.undrain(pod.id for pod in back)
        fresh = size - serving - len(back)
        if fresh:
            postponed = plan.postponable(serving + len(back), fresh)
            room = self._wanted.most - len(plan.serving) - len(plan.draining)
            cluster.scale_up(cluster.replicas + max(0, min(fresh - postponed, room)))

    def _plan(self, cluster: Cluster) -> "Plan":
        arrivals, terms = cluster.trace.arrivals, cluster.terms
        within = self._wanted.start_within.total_seconds()
        until = cluster.now + 2 * terms.start + within
        while self._passed < len(arrivals) and arrivals[self._passed] <= cluster.now:
            self._passed += 1
        jobs = [*cluster.waiting]
        following = self._passed
        while following < len(arrivals) and arrivals[following] <= until:
            jobs.append(following)
            following += 1
        return Plan(cluster, jobs, within)


class Plan:
    """What is to be started within the horizon, and who could do so.

    `serving` has those first that should stay the longest, `draining` those that should come back
    first.
    """

    def __init__(self, cluster: Cluster, jobs: Sequence[int], within: float) -> None:
        self._now = cluster.now
        self._start = cluster.terms.start
        self._slots = cluster.terms.slots
        trace = cluster.trace
        self._services = trace.services
        self._jobs = [
            (trace.arrivals[job], trace.arrivals[job] + within, trace.services[job]) for job in jobs
        ]
        pods = list(cluster.pods.values())
        self.serving = sorted((pod for pod in pods if pod.is_serving), key=self._staying)
        draining = (pod for pod in pods if pod.stage is Stage.DRAINING)
        self.draining = sorted(draining, key=self._staying)
        self._forgive()

    def _forgive(self) -> None:
        """Jobs that can't start in time any more have to as soon as anybody can let them."""
        soonest = self._now + self._start
        free = [*self._free(len(self.serving) + len(self.draining), 0), soonest]
        heapify(free)
        for index, (arrival, deadline, service) in enumerate(self._jobs):
            if deadline >= soonest:
                return
            begins = max(arrival, self._now, free[0])
            if begins < soonest:
                heapreplace(free, begins + service)
            self._jobs[index] = (arrival, max(deadline, min(begins, soonest)), service)

    def fewest(self, guess: int) -> int:
        """Replicas that are enough; those that aren't there yet could be in `start` seconds."""
        size = guess
        if self._is_enough(size):
            while size and self._is_enough(size - 1):
                size -= 1
            return size
        step = 1
        while not self._is_enough(size + step):
            step *= 2
        low, high = size + step // 2, size + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._is_enough(middle) else (middle, high)
        return high

    def postponable(self, there: int, fresh: int) -> int:
        """How many of the fresh ones may as well be started at the next look."""
        low, high = 0, fresh
        while low < high:
            middle = (low + high + 1) // 2
            is_enough = self._is_enough(there + fresh, later=middle)
            low, high = (middle, high) if is_enough else (low, middle - 1)
        return low

    def _is_enough(self, size: int, later: int = 0) -> bool:
        if not self._jobs:
            return True
        free = list(self._free(size, later))
        if not free:
            return False
        heapify(free)
        for arrival, deadline, service in self._jobs:
            begins = max(arrival, free[0])
            if begins > deadline + HAIR:
                return False
            heapreplace(free, begins + service)
        return True

    def _free(self, size: int, later: int) -> Iterator[float]:
        """When each slot is free, of so many replicas."""
        known = [*self.serving, *self.draining][:size]
        for pod in known:
            if pod.stage is Stage.STARTING or not pod.slots:
                yield from [max(self._now, pod.ready_at)] * self._slots
                continue
            yield from self._ends(pod)
            yield from [self._now] * (pod.slots - len(pod.jobs))
        fresh = size - len(known)
        yield from [self._now + self._start] * (self._slots * (fresh - later))
        yield from [self._now + self._start + Oracle.interval] * (self._slots * later)

    def _ends(self, pod: Pod) -> Iterator[float]:
        services = self._services
        return (since + services[job] for job, since in pod.jobs.items())

    def _staying(self, pod: Pod) -> tuple[float, str]:
        """Those that are occupied for the longest stay."""
        if pod.stage is Stage.STARTING:
            return -pod.ready_at if pod.ready_at > self._now else 0.0, pod.id
        return -max(self._ends(pod), default=-math.inf), pod.id


def _idle(cluster: Cluster) -> list[Pod]:
    pods = cluster.pods.values()
    return [pod for pod in pods if pod.drained_at < ENDLESS and not pod.jobs]
