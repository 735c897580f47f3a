"""The metrics of worker and dispatcher. Labels are bounded: queues and kinds of this platform."""

from collections.abc import Collection, Mapping
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from jangada.jobs.delivery.dispatch import Aside
from jangada.jobs.delivery.sweep import Swept
from jangada.jobs.metrics import count_enqueued
from jangada_queue.statistics import QueueStats, Upstream
from jangada_worker.link import Observation

DURATION = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
WAIT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 1800)


class WorkerMetrics:
    """What a worker's parent counts for its children."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ended = Counter(
            "jangada_job_total",
            "Attempts that ended, by outcome.",
            ("queue", "kind", "outcome"),
            registry=registry,
        )
        self.duration = Histogram(
            "jangada_job_duration_seconds",
            "How long an attempt ran.",
            ("queue", "kind"),
            buckets=DURATION,
            registry=registry,
        )
        self.wait = Histogram(
            "jangada_job_queue_wait_seconds",
            "From when a job was due to its start.",
            ("queue", "kind"),
            buckets=WAIT,
            registry=registry,
        )
        self.slots = Gauge("jangada_worker_slots", "Slots for jobs.", ("state",), registry=registry)
        self.restarts = Counter(
            "jangada_worker_restarts_total",
            "Child processes that ended unasked.",
            registry=registry,
        )
        self.late_beats = Counter(
            "jangada_worker_failed_beats_total",
            "Beats that PostgreSQL did not take.",
            registry=registry,
        )

        self.count_enqueued = count_enqueued(registry)
        self._ended = cache(self.ended.labels)
        self._duration = cache(self.duration.labels)
        self._wait = cache(self.wait.labels)

    def observe(self, attempt: Observation) -> None:
        self._ended(attempt.queue, attempt.kind, attempt.outcome).inc()
        self._duration(attempt.queue, attempt.kind).observe(attempt.seconds)
        self._wait(attempt.queue, attempt.kind).observe(max(0.0, attempt.waited_seconds))

    def show_slots(self, busy: int, total: int) -> None:
        self.slots.labels("busy").set(busy)
        self.slots.labels("free").set(total - busy)


class DispatcherMetrics:
    """What a dispatcher knows of the queues."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, help_: str) -> Gauge:
            return Gauge(name, help_, ("queue",), registry=registry)

        def counter(name: str, help_: str, *labels: str) -> Counter:
            return Counter(name, help_, labels, registry=registry)

        self.waiting = gauge("jangada_queue_waiting", "Messages that wait in Valkey.")
        self.leased = gauge("jangada_queue_leased", "Messages that are claimed and not granted.")
        self.parked = gauge("jangada_queue_parked", "Messages of kinds that no worker knows.")
        self.available = gauge("jangada_queue_available", "Jobs that may start (to 10,000).")
        self.running = gauge("jangada_queue_running", "Jobs that run.")
        self.due = gauge("jangada_queue_due_60s", "Jobs that are due within a minute.")
        self.delayed = gauge(
            "jangada_queue_delayed", "Jobs that are due later, or tried again (to 10,000 in all)."
        )
        self.dead = gauge("jangada_queue_dead", "Jobs that were discarded (to 10,000 in all).")
        self.oldest = gauge("jangada_queue_oldest_wait_seconds", "The longest wait of all.")
        self._current = (
            *(self.waiting, self.leased, self.parked),
            *(self.available, self.running, self.due, self.oldest),
        )
        self.published = counter(
            "jangada_queue_published_total", "Messages that a round published.", "queue"
        )
        self.expired = counter("jangada_lease_expired_total", "Message leases expired.", "queue")
        self.cleared = counter(
            "jangada_queue_window_cleared_total", "Windows that were lost in part.", "queue"
        )
        self.crashed = counter("jangada_job_crashed_total", "Jobs whose worker died.", "queue")
        self.poisoned = counter("jangada_job_poisoned_total", "Jobs discarded as poison.", "queue")
        self.count_enqueued = count_enqueued(registry)
        self.fired = counter("jangada_schedule_fired_total", "Jobs that schedules enqueued.")
        self.buried = counter("jangada_worker_lost_total", "Workers that fell silent.")
        self.pruned = counter(
            "jangada_job_pruned_total", "Finished jobs whose retention was over.", "state"
        )
        self._heard_of: set[str] = set()
        self.prune_behind = Gauge(
            "jangada_job_prune_behind_seconds",
            "For how long finished jobs have been waiting to be deleted.",
            ("state",),
            registry=registry,
        )

    def show_aside(self, found: Mapping[str, Aside], queues: Collection[str]) -> None:
        """Every queue that was ever heard of has a figure, also where that is none (any more)."""
        self._heard_of |= {*found, *queues}
        for queue in self._heard_of:
            aside = found.get(queue, Aside())
            # From 0 on, or an alert would take the first of a queue for what it began with.
            self.crashed.labels(queue)
            self.poisoned.labels(queue)
            self.delayed.labels(queue).set(aside.delayed)
            self.dead.labels(queue).set(aside.dead)

    def count_swept(self, swept: Swept) -> None:
        self.buried.inc(len(swept.workers))
        for queue in swept.recovered.values():
            self.crashed.labels(queue).inc()
        for queue in swept.discarded.values():
            self.poisoned.labels(queue).inc()

    def forget(self) -> None:
        """What isn't known any more is no figure: an old one would say that all is well."""
        for gauge in self._current:
            gauge.clear()

    def show(self, stats: QueueStats, upstream: Upstream) -> None:
        queue = stats.queue
        self.waiting.labels(queue).set(stats.waiting)
        self.leased.labels(queue).set(stats.claimed)
        self.parked.labels(queue).set(sum(stats.parked.values()))
        self.available.labels(queue).set(upstream.available)
        self.running.labels(queue).set(upstream.running)
        self.due.labels(queue).set(upstream.due_60s)
        self.oldest.labels(queue).set(upstream.oldest_wait_seconds)
