"""What a queue would know of its own load, as `jangada_queue` keeps it."""

from typing import Final

from jangada_queue.rates import DecayedRate
from jangada_queue.service_times import ServiceTimes

GENERATION: Final = 300.0
"""As queues keep service times: two generations of so many seconds."""


class Learned:
    """Arrivals a second, and the service times of the last five to ten minutes."""

    def __init__(self) -> None:
        self._rate = DecayedRate()
        self._fresh = ServiceTimes()
        self._latest = ServiceTimes()
        self._known = ServiceTimes()
        self._turned_at = 0.0

    def see(self, arrived: int, now: float) -> None:
        """What has come and ended since the last time is known from now on."""
        self._rate.see(arrived, now)
        if self._fresh.count:
            self._latest.merge(self._fresh)
            self._known.merge(self._fresh)
            self._fresh = ServiceTimes()
        if now - self._turned_at > GENERATION:
            self._turned_at = now
            self._known, self._latest = self._latest, ServiceTimes()

    def add(self, kind: str, seconds: float) -> None:
        self._fresh.add(seconds, kind)

    @property
    def arrival_rate(self) -> float:
        return self._rate.per_second

    def service(self) -> ServiceTimes:
        return self._known
