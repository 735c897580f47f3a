"""What a scenario found, and the registry of scenarios."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from chaos.columns import FAST, OURS, PLATFORM, STOCK, Column, Pace
from chaos.forkserver import Launch, start
from chaos.harness import Harness, harness
from chaos.ledger import Counts
from chaos.raft import Raft, raft
from chaos.servers import Valkey
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure in words, and whether a person who pays for the job would call it sound."""

    figure: str
    is_sound: bool
    counts: Counts = field(default_factory=Counts)


class Run(Protocol):
    """Runs a scenario; tests have its programs started their own way."""

    def __call__(
        self, column: Column, pace: Pace, launch: Launch = start
    ) -> Awaitable[Finding]: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A scenario: its name, the question that it asks, and the columns where it makes sense."""

    name: str
    question: str
    columns: tuple[Column, ...]
    run: Run


SCENARIOS: Final[dict[str, Entry]] = {}

type OnQueue = Callable[[Harness], Awaitable[Finding]]
type OnPlatform = Callable[[Raft], Awaitable[Finding]]


def scenario(
    name: str,
    question: str,
    *,
    columns: tuple[Column, ...] = (STOCK, OURS, FAST),
    valkey: type[Valkey] = EmbeddedValkey,
) -> Callable[[OnQueue], OnQueue]:
    """A scenario of a taskiq application and a queue, without PostgreSQL."""

    def register(function: OnQueue) -> OnQueue:
        async def run(column: Column, pace: Pace, launch: Launch = start) -> Finding:
            async with harness(column, pace, valkey, launch) as made:
                return await function(made)

        SCENARIOS[name] = Entry(name, question, columns, run)
        return function

    return register


def storm(
    name: str, question: str, *, valkey: type[Valkey] = EmbeddedValkey
) -> Callable[[OnQueue], OnQueue]:
    """One that only ours can pass, so only ours is asked."""
    return scenario(name, question, columns=(OURS, FAST), valkey=valkey)


def platform_storm(
    name: str,
    question: str,
    *,
    valkey: type[Valkey] = EmbeddedValkey,
    postgres: type[EmbeddedPostgres] = EmbeddedPostgres,
) -> Callable[[OnPlatform], OnPlatform]:
    """A scenario of the platform: dispatcher and workers on PostgreSQL."""

    def register(function: OnPlatform) -> OnPlatform:
        async def run(column: Column, pace: Pace, launch: Launch = start) -> Finding:
            del column
            async with raft(pace, valkey, postgres, launch) as made:
                return await function(made)

        SCENARIOS[name] = Entry(name, question, (PLATFORM,), run)
        return function

    return register
