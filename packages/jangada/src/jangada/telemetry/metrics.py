"""Metrics: a registry per process, made by its composition root and passed down.

Names follow OpenTelemetry where it has one, units are base units, and every label has a bounded
set of values.
"""

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

DURATION_BUCKETS = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
)
"""OpenTelemetry's recommended boundaries for the duration of HTTP requests, in seconds."""


def new_registry() -> CollectorRegistry:
    """Make a registry that already has the process's own metrics: memory, CPU, open files."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry) -> tuple[bytes, str]:
    """What a scrape answers: the body and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST
