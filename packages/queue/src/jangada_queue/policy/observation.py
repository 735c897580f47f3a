"""What is seen of a pool at one moment. Spans of time are in seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType
from typing import NamedTuple, Protocol

from jangada_queue.service_times import ServiceTimes


class Stage(Enum):
    """How far a replica is between its creation and its end."""

    STARTING = auto()
    """Created, and hasn't reported yet."""
    READY = auto()
    DRAINING = auto()
    """Asked to claim nothing. It may still start, or run something."""
    COMMITTED = auto()
    """Empty, and about to be deleted: it comes back in no case."""
    TERMINATING = auto()
    """It has been told to end: no capacity, but its jobs are demand."""


class Running(NamedTuple):
    """One job that runs: its kind, and for how long it has."""

    kind: str
    seconds: float


class Replica(Protocol):
    """One worker process, or all processes of one pod: what is drained together."""

    @property
    def id(self) -> str: ...
    @property
    def stage(self) -> Stage: ...
    @property
    def age(self) -> float:
        """Since it was created."""
        ...

    @property
    def slots(self) -> int:
        """How many jobs it runs at once; 0 while that isn't known."""
        ...

    @property
    def held(self) -> int:
        """Jobs that it runs or has claimed."""
        ...

    @property
    def running(self) -> Sequence[Running]: ...
    @property
    def drained_for(self) -> float:
        """Since it was asked to claim nothing; 0 when it isn't."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A replica, as somebody saw it."""

    id: str
    stage: Stage
    age: float
    slots: int = 0
    held: int = 0
    running: Sequence[Running] = ()
    drained_for: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What the pool's queues say, together.

    `backlog` is all that could start now and hasn't; `in_flight` what is leased or runs, anywhere;
    `due_soon` what falls due within so many seconds, soonest first. `arrived` only ever grows (or
    begins anew with the server's data); `arrival_rate` is decayed over a minute, per second.
    """

    backlog: int
    in_flight: int
    arrived: int
    arrival_rate: float
    oldest_wait: float = 0.0
    due_soon: Sequence[tuple[float, int]] = ()
    service: ServiceTimes = field(default_factory=ServiceTimes)
    kinds: Mapping[str, float] = MappingProxyType({})
    """The mean service time of each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A pool at one moment.

    `replicas` is the size that was asked for; there may be fewer yet, or more. `signals` is None
    where they are absent or older than they may be; `signals_age` is then how old, if ever seen.
    """

    replicas: int
    pool: Sequence[Replica]
    signals: Signals | None
    signals_age: float | None = 0.0
