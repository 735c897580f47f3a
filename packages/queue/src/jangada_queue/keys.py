"""The names of all keys, and the version of the protocol.

Keys of one queue share a hash tag, so that each script's keys lie in one slot of a cluster.
"""

from dataclasses import dataclass
from typing import Final, Self, override

GROUP: Final = "workers"
"""The one consumer group of each stream."""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """`major.minor`: readers of one major understand each other; a minor only adds."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self:
        major, _, minor = text.partition(".")
        return cls(int(major), int(minor or 0))

    @override
    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


PROTOCOL: Final = Version(1, 2)


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one queue."""

    base: str

    @classmethod
    def of(cls, prefix: str, queue: str) -> Self:
        return cls(f"{prefix}:{{{queue}}}")

    @property
    def stream(self) -> str:
        """The messages that wait or are claimed; whatever is acknowledged is deleted from it."""
        return f"{self.base}:stream"

    @property
    def returned(self) -> str:
        """Messages that were claimed before and wait again: they go first."""
        return f"{self.base}:returned"

    @property
    def delayed(self) -> str:
        """Messages that aren't due yet, by the time when they are."""
        return f"{self.base}:delayed"

    @property
    def dead(self) -> str:
        """The dead letters: what nobody could read, and what was lost too often."""
        return f"{self.base}:dead"

    @property
    def truth(self) -> str:
        """Who decides what becomes of a message: PostgreSQL, or Valkey itself."""
        return f"{self.base}:truth"

    @property
    def window(self) -> str:
        """The keys of all messages that are published and not yet acknowledged."""
        return f"{self.base}:window"

    @property
    def wake(self) -> str:
        """Tokens on which workers block: there is one whenever a message waits."""
        return f"{self.base}:wake"

    @property
    def low(self) -> str:
        """The mark at which a claim wakes the dispatcher; set while the window is full."""
        return f"{self.base}:low"

    @property
    def dispatch(self) -> str:
        """At most one token, on which dispatchers block."""
        return f"{self.base}:dispatch"

    @property
    def turn(self) -> str:
        """Where the dispatcher's last round ended: the next one goes on behind it."""
        return f"{self.base}:turn"

    @property
    def parked(self) -> str:
        """The tags (`major:kind`) of parked messages; each tag has a list of its own."""
        return f"{self.base}:parked"

    @property
    def counters(self) -> str:
        """Totals that only grow: published, expired, unreadable."""
        return f"{self.base}:counters"

    @property
    def upstream(self) -> str:
        """What the dispatcher knows of work that isn't published yet."""
        return f"{self.base}:upstream"

    @property
    def workers(self) -> str:
        """The latest report of each worker."""
        return f"{self.base}:workers"

    @property
    def beats(self) -> str:
        """When each worker reported, by Valkey's clock."""
        return f"{self.base}:beats"

    def drain(self, pod: str) -> str:
        """Exists while the pod's workers must not claim; its value tells one flag from the next."""
        return f"{self.base}:drain:{pod}"
