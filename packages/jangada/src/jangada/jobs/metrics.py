"""Jobs that were enqueued, counted by whoever committed them: API, handlers and schedules."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from jangada.commits import Tally

ENQUEUED: Final = "job enqueued"
"""What is tallied for a job, before its queue and its kind."""


def count_enqueued(registry: CollectorRegistry) -> Tally:
    """`jangada_job_enqueued_total{queue,kind}`, for `Database.tally`."""
    counter = Counter(
        "jangada_job_enqueued_total",
        "Jobs that were enqueued, by whoever committed them.",
        ("queue", "kind"),
        registry=registry,
    )

    def count(tallies: Mapping[tuple[str, ...], int]) -> None:
        for (what, *labels), times in tallies.items():
            if what == ENQUEUED:
                counter.labels(*labels).inc(times)

    return count
