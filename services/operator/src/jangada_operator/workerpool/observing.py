"""A pool as the policy is told of it: pods from the cluster, reports from the queues."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from jangada_operator.workerpool.cluster import Pod
from jangada_operator.workerpool.draining import Drains
from jangada_queue.policy.observation import Observation, Replica, Seen, Stage
from jangada_queue.policy.reading import Reading, Reported, by_pod, read, workers_of
from jangada_queue.statistics import QueueStats

LONG_ENOUGH: Final = 60.0
SLOW: Final = 5.0
"""So many seconds, and so many times what a start takes, a ready pod may go without a report."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the queues of a pool said, and how long ago they last did."""

    stats: Sequence[QueueStats] | None
    age: float | None = 0.0
    why: str = ""
    """Why they said nothing."""

    @property
    def reading(self) -> Reading:
        if self.stats is None:
            return Reading(None, self.age or 0.0)
        return read(self.stats)

    @property
    def trouble(self) -> str:
        """Why there are no signals, where there are none."""
        if self.stats is None:
            return self.why
        return "" if self.reading.signals is not None else "Their dispatcher is silent."


@dataclass(slots=True)
class Registered:
    """Which pods ever reported: one that fell silent isn't starting."""

    uids: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    """Those that did to other queues, which were the pool's before, and not to these yet."""

    def keep(self, there: Mapping[str, Pod], reported: Mapping[str, Reported]) -> None:
        self.uids = {uid for uid in there if uid in self.uids or uid in reported}
        self.elsewhere = {uid for uid in there if uid in self.elsewhere} - self.uids

    def move(self) -> None:
        self.elsewhere |= self.uids
        self.uids = set()


def observe(
    replicas: int, pods: Mapping[str, Pod], look: Look, *, drains: Drains, registered: Registered
) -> Observation:
    """`pods` are all of the Deployment's, whatever generation they belong to."""
    reported = by_pod(workers_of(look.stats or ()))
    registered.keep(pods, reported)
    reading, now = look.reading, time.time()
    return Observation(
        replicas=replicas,
        pool=[
            _seen(pod, reported.get(uid, Reported()), drains, now, is_known=uid in registered.uids)
            for uid, pod in pods.items()
            if pod.is_active or pod.is_deleted
        ],
        signals=reading.signals,
        signals_age=reading.age if look.stats is not None else look.age,
    )


def unidentified(
    pods: Mapping[str, Pod], registered: Registered, start_seconds: float
) -> Sequence[Pod]:
    """Pods that are ready for so long that a worker in them should have said its pod's UID.

    Perhaps it says another name, or says it to other queues, and wouldn't obey a flag for this one:
    such a pod isn't drained, because it could never be known to be empty.
    """
    patience = max(LONG_ENOUGH, SLOW * start_seconds)
    oldest = time.time() - patience
    return [
        pod
        for uid, pod in pods.items()
        if pod.is_active and uid not in registered.uids
        if uid in registered.elsewhere or (pod.is_ready and pod.created < oldest)
    ]


def _seen(pod: Pod, said: Reported, drains: Drains, now: float, *, is_known: bool) -> Replica:
    return Seen(
        id=pod.uid,
        stage=_stage(pod, drains, is_known=is_known),
        age=max(0.0, now - pod.created),
        slots=said.slots,
        held=said.held,
        running=said.running,
        drained_for=drains.drained_for(pod.uid),
    )


def _stage(pod: Pod, drains: Drains, *, is_known: bool) -> Stage:
    if pod.is_deleted:
        return Stage.TERMINATING
    drain = drains.current.get(pod.uid)
    if drain is not None:
        return Stage.COMMITTED if drain.is_committed else Stage.DRAINING
    return Stage.READY if is_known else Stage.STARTING
