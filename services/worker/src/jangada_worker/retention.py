"""The dispatcher's part in retention: a few short batches in each round of housekeeping.

Any number of dispatchers may do it at once: each skips what another is about to delete.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from jangada.jobs.delivery.connection import DirectConnection
from jangada.jobs.delivery.retention import BEGINNING, prune
from jangada.jobs.models import JobState
from jangada.jobs_settings import JobsSettings
from jangada_worker.metrics import DispatcherMetrics

LONGEST_TURN: Final = 0.25
"""For so long, in seconds, a turn goes on with batches: the queues' figures wait for its end."""

FROM_THE_BEGINNING_EVERY: Final = timedelta(hours=1)
"""What a batch skipped, because somebody was about to change it, isn't looked at before."""


def retentions(settings: JobsSettings) -> dict[JobState, timedelta]:
    """How long jobs are kept after they ended in each state; those for ever are left out."""
    chosen = {
        JobState.COMPLETED: settings.completed_retention,
        JobState.CANCELLED: settings.cancelled_retention,
        JobState.DISCARDED: settings.discarded_retention,
    }
    return {state: retention for state, retention in chosen.items() if retention}


@dataclass(slots=True)
class Retention:
    """Where pruning stands, in each state."""

    connection: DirectConnection
    metrics: DispatcherMetrics
    retentions: Mapping[JobState, timedelta]
    _since: dict[JobState, datetime] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    async def take_turn(self) -> None:
        """Prune what is due, for a moment; the next turn goes on."""
        if time.monotonic() - self._began >= FROM_THE_BEGINNING_EVERY.total_seconds():
            self._since.clear()
            self._began = time.monotonic()
        end = time.monotonic() + LONGEST_TURN
        for state, retention in self.retentions.items():
            while await self._prune(state, retention) and time.monotonic() < end:
                pass

    async def _prune(self, state: JobState, retention: timedelta) -> bool:
        """Whether there is more."""
        since = self._since.get(state, BEGINNING)
        pruned = await self.connection.run(
            lambda found: prune(found, state, retention, since=since)
        )
        self._since[state] = pruned.until
        self.metrics.pruned.labels(state).inc(pruned.jobs)
        self.metrics.prune_behind.labels(state).set(pruned.behind.total_seconds())
        return pruned.behind > timedelta(0)
