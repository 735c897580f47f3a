"""One repetition of one contestant: every figure, each over jobs that are counted.

Two ways of measuring throughput, because they favour different engines:
- *through*: workers are up and warm, and a producer enqueues as fast as its bulk way allows, on
  the same cores; jobs / (last end - first enqueue).
- *drain*: the queue was filled before the workers start; the rate over the middle 80 % of the runs,
  so that neither their start nor their last jobs count.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from queues.adapter import PROCESSES
from queues.contestants import Contestant
from queues.crew import Crew, Void
from queues.servers import Servers, processor_seconds

POLL = 0.02
STALL = 45.0
"""Seconds without a single run after which jobs count as lost."""

LINGER = 0.5
"""How long one waits for runs too many."""

WARM_UP, WARM_UP_ROUNDS = 50, 10
TRIAL = 100
DEEPER = 3
"""A queue that is drained holds so many times the jobs of a through: it ends sooner."""

NAPS = 20
"""Sleeps for each place: 2 s of work when all places are in use."""

MIDDLE = (0.1, 0.9)


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured."""

    jobs: int
    seconds: float
    rate: float
    pickup_seconds: float
    measures: frozenset[str]


@dataclass(slots=True)
class Results:
    """Every value of every figure of every contestant, and why others are void."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    voids: list[str] = field(default_factory=list)
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, contestant: Contestant, **figures: float) -> None:
        for name, value in figures.items():
            self.values[contestant.name, name].append(value)


class Meter:
    """Processor time between the marks of the middle 80 % of a drain."""

    def __init__(self, servers: Servers, crew: Crew, indexes: range) -> None:
        self._servers = servers
        self._crew = crew
        self._marks = [indexes.start + int(part * len(indexes)) for part in MIDDLE]
        self._looks: list[tuple[float, ...]] = []

    def look(self, count: int) -> None:
        if self._marks and count >= self._marks[0]:
            self._marks = [mark for mark in self._marks if mark > count]
            seconds = processor_seconds(self._crew.processes())
            self._looks.append((count, seconds, *self._servers.processor_seconds()))

    def spent(self) -> dict[str, float]:
        """Microseconds a job; nothing where the drain was over between two looks."""
        if len(self._looks) < len(MIDDLE):
            return {}
        (first, *before), (last, *after) = self._looks
        names = ("processor", "processor_postgres", "processor_valkey")
        used = [1e6 * (b - a) / (last - first) for a, b in zip(before, after, strict=True)]
        return {**dict(zip(names, used, strict=True)), "processor_all": sum(used)}


class Repetition:
    """A contestant's turn."""

    def __init__(
        self, servers: Servers, contestant: Contestant, amount: Amount, results: Results
    ) -> None:
        self.servers = servers
        self.contestant = contestant
        self.amount = amount
        self.results = results
        self.next = 0

    def run(self, number: int) -> None:
        """What is void ends the turn: what comes after it can't be trusted either."""
        crew = Crew(self.servers, self.contestant, f"-{number}")
        try:
            crew.stage("prepare")
            self.servers.settle()
            self._run_warm(crew)
            self._run_filled(crew)
        except Void as void:
            self.results.voids.append(f"{self.contestant.title}, repetition {number + 1}: {void}")
        finally:
            crew.stop()

    def _has(self, measure: str) -> bool:
        return measure in self.contestant.measured & self.amount.measures

    def _run_warm(self, crew: Crew) -> None:
        """What needs workers that are up: through and pick-up."""
        steps: dict[str, Callable[[Crew], None]] = {
            "noop": lambda crew: self._through(crew, "noop"),
            "insert": lambda crew: self._through(crew, "insert"),
            "pickup": self._pickup,
        }
        wanted = [name for name in steps if self._has(name)]
        if not wanted:
            return
        crew.start()
        self._warm_up(crew)
        for name in wanted:
            steps[name](crew)
        crew.stop()

    def _run_filled(self, crew: Crew) -> None:
        """What needs a queue without workers: bulk enqueue, then the drain."""
        for kind in ("noop", "insert", "nap"):
            if self._has(kind) or (kind == "noop" and self._has("bulk")):
                self._drain(crew, kind)

    def _range(self, count: int) -> range:
        self.next += count
        return range(self.next - count, self.next)

    def _warm_up(self, crew: Crew) -> None:
        """A few jobs at a time, until every process has run some."""
        needed = min(PROCESSES, self.contestant.at_once)
        for _ in range(WARM_UP_ROUNDS):
            indexes = self._range(max(WARM_UP, self.contestant.at_once))
            crew.fill("noop", indexes)
            self._until_run(crew, indexes)
            if len({run.process for run in crew.ledger.runs()}) >= needed:
                return
        raise Void("only one process takes jobs")

    def _size(self, crew: Crew, kind: str) -> int:
        """As many jobs as take about the wanted time, found once by a trial."""
        key = (self.contestant.name, kind)
        if key not in self.results.sizes:
            rate = len(trial := self._range(TRIAL)) / self._seconds_through(crew, kind, trial)
            fitting = max(TRIAL, int(rate * self.amount.seconds))
            self.results.sizes[key] = min(self.amount.jobs, fitting)
        return self.results.sizes[key]

    def _seconds_through(self, crew: Crew, kind: str, indexes: range) -> float:
        filled = crew.fill(kind, indexes)
        self._until_run(crew, indexes)
        return max(run.at for run in crew.ledger.of(indexes)) - filled["began"]

    def _through(self, crew: Crew, kind: str) -> None:
        indexes = self._range(self._size(crew, kind))
        rate = len(indexes) / self._seconds_through(crew, kind, indexes)
        self._check_effects(kind, indexes)
        self.results.add(self.contestant, **{f"{kind}_through": rate})

    def _check_effects(self, kind: str, indexes: range) -> None:
        """Each job's row is there, once."""
        if kind == "insert":
            found = self.servers.effects(self.contestant, indexes)
            if sorted(found) != list(indexes):
                raise Void(f"{len(found)} rows of {len(indexes)} jobs with one each")

    def _pickup(self, crew: Crew) -> None:
        indexes = self._range(int(self.amount.rate * self.amount.pickup_seconds))
        paced = crew.stage("pace", first=indexes.start, count=len(indexes), rate=self.amount.rate)
        self._until_run(crew, indexes)
        started = {run.index: run.at for run in crew.ledger.of(indexes)}
        from_call = sorted(started[i] - at for i, at in zip(indexes, paced["called"], strict=True))
        from_in = sorted(
            max(0.0, started[i] - at) for i, at in zip(indexes, paced["accepted"], strict=True)
        )
        self.results.add(
            self.contestant,
            called_p50=1000 * _quantile(from_call, 0.50),
            called_p99=1000 * _quantile(from_call, 0.99),
            pickup_p50=1000 * _quantile(from_in, 0.50),
            pickup_p99=1000 * _quantile(from_in, 0.99),
        )

    def _depth(self, kind: str) -> int:
        if kind == "nap":
            return NAPS * self.contestant.at_once
        size = self.results.sizes.get((self.contestant.name, kind))
        return self.amount.jobs if size is None else DEEPER * size

    def _drain(self, crew: Crew, kind: str) -> None:
        indexes = self._range(min(self._depth(kind), self.amount.jobs))
        empty = self.servers.valkey_memory()
        filled = crew.fill(kind, indexes)
        waiting = self.servers.valkey_memory()
        if kind == "noop":
            seconds = filled["ended"] - filled["began"]
            self.results.add(self.contestant, bulk=len(indexes) / seconds)
            if self.contestant.uses_valkey:
                self.results.add(self.contestant, bytes_waiting=(waiting - empty) / len(indexes))
        if not self._has(kind):
            return
        crew.start()
        meter = Meter(self.servers, crew, indexes)
        self._until_run(crew, indexes, meter.look)
        self._check_effects(kind, indexes)
        self.results.add(self.contestant, **{f"{kind}_drain": _middle_rate(crew, indexes)})
        if kind == "noop":
            self.results.add(self.contestant, **meter.spent())
            self._weigh(crew, len(indexes), empty)
        crew.stop()

    def _weigh(self, crew: Crew, jobs: int, empty: int) -> None:
        self.results.add(
            self.contestant,
            resident=crew.resident_memory(),
            proportional=crew.proportional_memory(),
        )
        if self.contestant.uses_valkey:
            left = self.servers.valkey_memory() - empty
            self.results.add(self.contestant, bytes_left=left / jobs)
        if self.contestant.database is not None:
            self.results.add(self.contestant, postgres=self.servers.postgres_memory())

    def _until_run(
        self, crew: Crew, indexes: range, look: Callable[[int], None] = lambda _: None
    ) -> None:
        """Return when all have run, once each. Raises `Void` when that isn't to be.

        The numbers begin at 0 and all earlier ones have run, so the last number is the count.
        """
        seen, changed = 0, time.monotonic()
        while seen < indexes.stop:
            if (now := crew.ledger.count()) > seen:
                seen, changed = now, time.monotonic()
                look(now)
            elif time.monotonic() - changed > STALL:
                raise Void(f"{indexes.stop - seen} of {len(indexes)} jobs didn't run")
            crew.check()
            time.sleep(POLL)
        time.sleep(LINGER)
        if fault := crew.ledger.fault(indexes):
            raise Void(fault)


def _middle_rate(crew: Crew, indexes: range) -> float:
    times = sorted(run.at for run in crew.ledger.of(indexes))
    first, last = (int(part * (len(times) - 1)) for part in MIDDLE)
    return (last - first) / (times[last] - times[first])


def _quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
