"""A client that enqueues in transactions of its own and commits, rolls back, or is killed in them.

A program: it imports everything once and forks a process for each lot of trials, which ends with
the first that draws death. Each trial writes a row of its own in the same transaction, so that
what PostgreSQL says of that transaction is known, also when nobody lived to hear it.
"""

import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from typing import Final
from uuid import UUID

from sqlalchemy import text

from chaos.handlers import FOLDER, Effect
from chaos.ledger import write
from jangada.config import load_settings
from jangada.db import new_id
from jangada.jobs.service import enqueue
from jangada.runtime import Runtime, open_runtime

FATES: Final = {
    "commit": 0.5,
    "roll back": 0.25,
    "die before the commit": 0.05,
    "die during the commit": 0.15,
    "die after the commit": 0.05,
}
CLIENTS: Final = "clients"
"""How PostgreSQL knows them."""

DURING: Final = 0.004
"""Within so many seconds a commit has been sent and, mostly, answered."""


class RolledBackError(Exception):
    """What the client's own code raises."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_within(seconds: float) -> None:
    def wait() -> None:
        time.sleep(seconds)
        die()

    threading.Thread(target=wait, daemon=True).start()


async def attempt(runtime: Runtime, tenant_id: UUID, fate: str, draw: random.Random) -> None:
    """One trial; it returns when its process lives on."""
    folder, job = os.environ[FOLDER], new_id()
    write(folder, "perhaps", str(job))
    async with runtime.database.transaction(tenant_id) as session:
        await session.execute(text("INSERT INTO trials VALUES (:job)"), {"job": job})
        await enqueue(session, Effect(), tenant_id=tenant_id, id=job)
        if fate == "roll back":
            raise RolledBackError
        if fate == "die before the commit":
            die()
        if fate == "die during the commit":
            die_within(draw.uniform(0, DURING))
    write(folder, "enqueued", str(job))
    if fate.startswith("die"):
        die()


async def make_trials(tenant_id: UUID, fates: list[str], draw: random.Random) -> None:
    async with open_runtime(load_settings(), application_name=CLIENTS) as runtime:
        for fate in fates:
            try:
                await attempt(runtime, tenant_id, fate, draw)
            except RolledBackError:
                write(os.environ[FOLDER], "rolled-back", "-")


def lots(count: int, draw: random.Random) -> list[list[str]]:
    """The fates of all trials, in lots that end with a death."""
    drawn = draw.choices(list(FATES), weights=list(FATES.values()), k=count)
    found: list[list[str]] = [[]]
    for fate in drawn:
        found[-1].append(fate)
        if fate.startswith("die"):
            found.append([])
    return [lot for lot in found if lot]


def main(arguments: list[str]) -> int:
    tenant, count, seed = arguments
    draw = random.Random(int(seed))
    deaths = 0
    for number, lot in enumerate(lots(int(count), draw)):
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            deaths += os.WIFSIGNALED(status)
            continue
        own = random.Random(f"{seed}-{number}")
        asyncio.run(make_trials(UUID(tenant), lot, own))
        os._exit(0)
    print(json.dumps({"deaths": deaths}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
