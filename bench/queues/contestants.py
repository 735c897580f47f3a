"""Who takes part, where each lives, and what is measured of it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = frozenset({"noop", "nap", "bulk", "pickup", "recovery"})


@dataclass(frozen=True, slots=True)
class Contestant:
    """One of them. `rival` names its environment under `.rivals`; None is our own.

    `at_once` is how many jobs it runs at the same time with its settings, over both processes.
    """

    name: str
    title: str
    adapter: str
    rival: str | None
    at_once: int
    measured: frozenset[str] = EVERYTHING
    database: str | None = None
    settings: Mapping[str, int] = field(default_factory=dict)
    needs: str | None = None

    @property
    def python(self) -> Path:
        if self.rival is None:
            return Path(sys.executable)
        return ROOT / ".rivals" / self.rival / "bin/python"

    @property
    def is_ours(self) -> bool:
        return self.rival is None and "recovery" in self.measured

    @property
    def uses_valkey(self) -> bool:
        return self.database is None or self.is_ours

    def missing(self) -> str | None:
        """Why it can't take part (yet)."""
        if self.needs is not None and not _exists(self.needs):
            return f"there is no module {self.needs} (yet)"
        return None


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


CONTESTANTS = (
    Contestant("celery", "Celery, prefork", "celery", "celery", 2),
    Contestant("dramatiq", "dramatiq", "dramatiq", "dramatiq", 16),
    Contestant("rq", "RQ", "rq", "rq", 2),
    Contestant("arq", "arq", "arq", "arq", 200),
    Contestant(
        "procrastinate",
        "procrastinate",
        "procrastinate",
        "procrastinate",
        40,
        EVERYTHING | {"insert"},
        database="procrastinate",
    ),
    Contestant("stock", "taskiq-redis, stock", "taskiq", "taskiq", 200),
    Contestant(
        "queue",
        "Jangada, queue alone",
        "queue_alone",
        None,
        200,
        needs="jangada_queue.taskiq",
    ),
    Contestant(
        "ours",
        "Jangada with PostgreSQL",
        "with_postgresql",
        None,
        200,
        database="jangada",
        settings={"WORKER__SLOTS": 100},
    ),
    Contestant(
        "ours-own",
        "Jangada, own transactions",
        "with_postgresql",
        None,
        40,
        frozenset({"insert"}),
        database="jangada",
        settings={"WORKER__SLOTS": 20, "DATABASE__POOL_SIZE": 20},
    ),
    Contestant(
        "bare",
        "bare LISTEN/NOTIFY loop",
        "bare",
        None,
        1,
        frozenset({"pickup"}),
        database="bare",
    ),
    Contestant(
        "copy",
        "bare COPY",
        "bare_copy",
        None,
        0,
        frozenset({"bulk"}),
        database="jangada",
    ),
)

BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}
