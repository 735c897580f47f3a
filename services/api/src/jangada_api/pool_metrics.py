"""The database pool as metrics, under OpenTelemetry's names, read at each scrape."""

from collections.abc import Callable, Iterator
from typing import override

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jangada.db import PoolUsage


class PoolCollector(Collector):
    """`db_client_connection_count{state}` and `db_client_connection_max` of one process."""

    def __init__(self, read: Callable[[], PoolUsage]) -> None:
        self._read = read

    @override
    def collect(self) -> Iterator[Metric]:
        usage = self._read()
        count = GaugeMetricFamily(
            "db_client_connection_count",
            "Pooled connections to PostgreSQL by what they do.",
            labels=["state"],
        )
        count.add_metric(["used"], usage.used)
        count.add_metric(["idle"], usage.idle)
        yield count
        yield GaugeMetricFamily(
            "db_client_connection_max",
            "Connections that the pool keeps at most; a request beyond them waits, then gets 503.",
            value=usage.maximum,
        )


def watch_pool(registry: CollectorRegistry, read: Callable[[], PoolUsage]) -> Callable[[], None]:
    """Export the pool from now on; the answer ends that."""
    collector = PoolCollector(read)
    registry.register(collector)
    return lambda: registry.unregister(collector)
