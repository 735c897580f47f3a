"""From what queues say to what the policy is told."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jangada_queue.policy.observation import Running, Signals
from jangada_queue.service_times import ServiceTimes
from jangada_queue.statistics import QueueStats
from jangada_queue.workers import WorkerReport


@dataclass(frozen=True, slots=True)
class Reading:
    """The signals of several queues together, or None with the age of what is too old to trust."""

    signals: Signals | None
    age: float


def read(queues: Sequence[QueueStats]) -> Reading:
    """What the queues of one pool say, in one.

    Work that a dispatcher hasn't published yet is known for as long as the dispatcher says it:
    where it fell silent the signals are stale, whatever the other queues say.
    """
    ages = [each.upstream_age_seconds for each in queues if each.upstream_age_seconds is not None]
    age = max(ages, default=0.0)
    if not all(each.upstream is None or each.is_upstream_fresh for each in queues):
        return Reading(None, age)
    service = ServiceTimes()
    for each in queues:
        service.merge(each.service)
    workers = workers_of(queues)
    signals = Signals(
        backlog=sum(map(_backlog, queues)),
        in_flight=max(sum(map(_leased, queues)), sum(each.busy for each in workers)),
        arrived=sum(map(_arrived, queues)),
        arrival_rate=sum(each.arrival_per_second for each in queues),
        oldest_wait=max((each.oldest_wait_seconds or 0.0 for each in queues), default=0.0),
        due_soon=(
            (10.0, sum(map(_due_10s, queues))),
            (60.0, sum(map(_due_60s, queues))),
        ),
        service=service,
        kinds=service.means(),
    )
    return Reading(signals, age)


def workers_of(queues: Iterable[QueueStats]) -> list[WorkerReport]:
    """Each live worker once, though it serves several queues."""
    return list({each.worker: each for queue in queues for each in queue.workers}.values())


@dataclass(slots=True)
class Reported:
    """What the processes of a pod say together."""

    slots: int = 0
    held: int = 0
    running: list[Running] = field(default_factory=list)


def by_pod(workers: Iterable[WorkerReport]) -> Mapping[str, Reported]:
    found: dict[str, Reported] = {}
    for worker in workers:
        pod = found.setdefault(worker.pod, Reported())
        pod.slots += worker.slots
        pod.held += worker.busy + worker.claiming
        pod.running += [Running(each.kind, each.seconds) for each in worker.running]
    return found


def _backlog(queue: QueueStats) -> int:
    """What could start: published or not, each once; a window's messages are `available` too."""
    published = queue.waiting + queue.due
    if queue.upstream is None:
        return published
    return max(published, queue.upstream.available - queue.claimed)


def _leased(queue: QueueStats) -> int:
    return queue.claimed + (0 if queue.upstream is None else queue.upstream.running)


def _arrived(queue: QueueStats) -> int:
    if queue.upstream is None:
        return queue.published_total
    return queue.published_total + max(0, queue.upstream.available - queue.window)


def _due_10s(queue: QueueStats) -> int:
    return queue.due_10s - queue.due + (0 if queue.upstream is None else queue.upstream.due_10s)


def _due_60s(queue: QueueStats) -> int:
    return queue.due_60s - queue.due + (0 if queue.upstream is None else queue.upstream.due_60s)
