"""What is compared: stock taskiq-redis, and ours under the stock receiver and under our own."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, override

LEASED: Final = "jangada_queue.taskiq"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take; a short form has leases of two seconds. All in seconds."""

    lease: float = 10.0
    renew_every: float = 3.0
    sweep_every: float = 1.0
    idle_timeout: float = 1.0
    """Stock's nearest thing to a lease; its default of ten minutes is for nobody to wait for."""
    watch: float = 30.0
    """How long we look for what may not come."""
    backlog: int = 60
    backlog_job: float = 0.5
    retry_delay: float = 1.0
    scheduled_delay: float = 5.0
    drain: float = 1.0
    kills: int = 500
    kills_at_once: int = 25
    trials: int = 10_000
    """Transactions of an enqueuing client: committed, rolled back, or killed."""
    flood: int = 100_000
    outage: float = 30.0
    hog: int = 60
    """How long a job keeps the processor or the interpreter lock."""
    cuts: int = 20
    """How often connections are cut, servers restarted or clocks set."""
    starved_by: int = 10
    """Busy processes for each processor; few in a test, beside which others run."""
    seed: int = 0
    judges_time: bool = True
    """Whether being slow is unsound; not in a test, on a machine that does other things."""

    @property
    def long_job(self) -> float:
        """Longer than any lease."""
        return 3 * self.lease

    @property
    def leases(self) -> dict[str, float]:
        return {
            "lease": self.lease,
            "renew_every": self.renew_every,
            "sweep_every": self.sweep_every,
        }


SHORT: Final = Pace(
    lease=1.8,
    renew_every=0.45,
    sweep_every=0.1,
    idle_timeout=0.5,
    watch=20.0,
    backlog=30,
    backlog_job=0.25,
    retry_delay=0.2,
    scheduled_delay=0.5,
    drain=0.5,
    kills=4,
    kills_at_once=2,
    trials=40,
    flood=500,
    outage=2.0,
    hog=3,
    cuts=2,
    starved_by=2,
    judges_time=False,
)


@dataclass(frozen=True, slots=True)
class Column:
    """One way to run the application."""

    name: str
    broker: str
    receiver: str = ""
    python: str = sys.executable
    environ: Mapping[str, str] = field(default_factory=dict)

    @override
    def __str__(self) -> str:
        return self.name

    @property
    def is_ours(self) -> bool:
        return self.broker != "stock"

    @property
    def missing(self) -> str:
        """Why it can't be measured; empty when it can."""
        if self.broker != "leased":
            return ""
        try:
            importlib.import_module(LEASED)
        except ImportError as error:
            return f"not there yet: {error}"
        return ""

    def options(self, pace: Pace, more: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the broker: stock's are its defaults but for what a scenario says."""
        spans = pace.leases if self.is_ours else {}
        return {**spans, **more}

    @property
    def arguments(self) -> list[str]:
        """What `taskiq worker` is told besides what a scenario says."""
        return ["--receiver", self.receiver] if self.receiver else []


STOCK: Final = Column("stock taskiq-redis", "stock")
OURS: Final = Column("ours, stock receiver", "leased")
FAST: Final = Column("ours, LeasedReceiver", "leased", f"{LEASED}:LeasedReceiver")
PLATFORM: Final = Column("ours with PostgreSQL", "platform")
COLUMNS: Final = (STOCK, OURS, FAST, PLATFORM)
