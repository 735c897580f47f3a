"""How long a job waits after its worker was killed, on a queue where nothing else happens.

All contestants wait at the same time, each with two full sets of workers of its own: the first has
the job and is killed whole, as by a node that loses power; the second is idle. The wait is bounded,
because most take minutes or an hour, by settings that are their defaults for good reasons.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass

from queues.contestants import Contestant
from queues.crew import Crew, Void
from queues.measures import POLL, STALL, Results
from queues.servers import Servers

SETTLE = 8.0
"""Seconds in which the second set of workers starts and falls silent."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What a job waited in seconds; None where it was longer than one waited for it."""

    seconds: float | None
    bound: float


class Team(Crew):
    """A crew that ends with its block."""

    close = Crew.stop


def recover_all(
    servers: Servers, contestants: list[Contestant], results: Results, *, number: int, bound: float
) -> dict[str, Wait]:
    """One kill for each."""
    servers.settle()
    with ThreadPoolExecutor(len(contestants)) as pool:
        waits = [
            (each, pool.submit(_recover, servers, each, number, bound)) for each in contestants
        ]
    found: dict[str, Wait] = {}
    for contestant, wait in waits:
        try:
            found[contestant.name] = wait.result()
        except Void as void:
            results.voids.append(f"{contestant.title}, recovery {number + 1}: {void}")
    return found


def _recover(servers: Servers, contestant: Contestant, number: int, bound: float) -> Wait:
    with ExitStack() as stack:
        first = stack.enter_context(closing(Team(servers, contestant, f"-kill-{number}")))
        second = stack.enter_context(closing(Team(servers, contestant, f"-heir-{number}")))
        first.stage("prepare")
        first.start()
        first.fill("hold", range(1))
        if not _has_runs(first, STALL):
            raise Void(f"the job didn't start: {first.said()}")
        second.start(workers_only=True)
        time.sleep(SETTLE)
        second.check()
        killed = time.monotonic()
        first.kill_workers()
        if not _has_runs(second, bound):
            return Wait(None, bound)
        return Wait(second.ledger.runs()[0].at - killed, bound)


def _has_runs(crew: Crew, bound: float) -> bool:
    end = time.monotonic() + bound
    while not crew.ledger.count():
        if time.monotonic() > end:
            return False
        time.sleep(POLL)
    return True
