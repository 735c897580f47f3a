"""The operator's figures for Prometheus, taken from its memory when they are asked for."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jangada_operator.operating import Operator
from jangada_operator.workerpool.reconciling import Managed
from jangada_queue.policy.observation import Stage

LABELS: Final = ("namespace", "name")
GAUGES: Final = {
    "replicas": "The size that the Deployment was asked to have.",
    "desired_replicas": "How many replicas should serve.",
    "min_replicas": "The least that the spec allows.",
    "max_replicas": "The most that the spec allows.",
    "backlog": "Jobs that could start and haven't.",
    "oldest_wait_seconds": "How long the oldest of them waits.",
    "draining": "Replicas that were asked to claim nothing.",
    "signal_age_seconds": "How old the signals are that the last decision was made by.",
}
COUNTERS: Final = {
    "interrupted": "Jobs that ran in a pod when it went away.",
    "mispicked": "Pods that were deleted in place of drained ones.",
}
PREFIX: Final = "jangada_workerpool_"


class PoolMetrics(Collector):
    """One sample of each figure for each pool that this process leads."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    def collect(self) -> Iterator[Metric]:
        operator = self._operator
        leads = GaugeMetricFamily("jangada_operator_leader", "Whether this process leads.")
        leads.add_metric((), float(operator.leadership.is_held))
        yield leads
        pools = list(operator.managed.values())
        for name, text in GAUGES.items():
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=LABELS)
            for managed in pools:
                if (value := _gauges(managed).get(name)) is not None:
                    gauge.add_metric(_labels(managed), value)
            yield gauge
        yield from _counters(pools)
        yield from operator.look_seconds.collect()
        errors = CounterMetricFamily("jangada_operator_errors", "Looks at a pool that failed.")
        errors.add_metric((), operator.errors)
        yield errors


def _counters(pools: list[Managed]) -> Iterator[Metric]:
    for name, text in COUNTERS.items():
        counter = CounterMetricFamily(PREFIX + name, text, labels=LABELS)
        for managed in pools:
            counter.add_metric(_labels(managed), getattr(managed.counts, name))
        yield counter
    decisions = CounterMetricFamily(
        f"{PREFIX}decisions", "Decisions, by what decided.", labels=(*LABELS, "reason")
    )
    for managed in pools:
        for reason, count in managed.counts.decisions.items():
            decisions.add_metric((*_labels(managed), reason), count)
    yield decisions


def _labels(managed: Managed) -> tuple[str, str]:
    return managed.pool.key.namespace, managed.pool.key.name


def _gauges(managed: Managed) -> dict[str, float | None]:
    wanted, seen = managed.pool.wanted, managed.observation
    signals = None if seen is None else seen.signals
    return {
        "replicas": None if seen is None else seen.replicas,
        "desired_replicas": None if managed.latest is None else managed.latest.size,
        "min_replicas": wanted.least,
        "max_replicas": wanted.most,
        "backlog": None if signals is None else signals.backlog,
        "oldest_wait_seconds": None if signals is None else signals.oldest_wait,
        "draining": None
        if seen is None
        else sum(each.stage is Stage.DRAINING for each in seen.pool),
        "signal_age_seconds": None if seen is None else seen.signals_age,
    }
