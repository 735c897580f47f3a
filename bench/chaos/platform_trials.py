"""Clients commit, roll back and die in the transactions in which they enqueue."""

import asyncio
import json
import sys
from typing import Final

from chaos.clients import CLIENTS
from chaos.findings import Finding, platform_storm
from chaos.ledger import Counts
from chaos.raft import Raft

LONG: Final = 3600.0
PATIENCE: Final = 120.0
PAUSE: Final = 0.05


async def run_client(raft: Raft) -> int:
    """How many of its processes were killed."""
    arguments = (str(raft.tenant_id), str(raft.pace.trials), str(raft.pace.seed))
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos.clients", *arguments),
        env=raft.environ,
        cwd=raft.folder,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(client.communicate(), LONG)
    (told,) = [line for line in said.splitlines() if line.startswith(b"{")]  # the rest is its log
    deaths: int = json.loads(told)["deaths"]
    return deaths


async def no_client_is_left(raft: Raft) -> None:
    """A server process may still commit what its client, who is dead, has asked for."""
    there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name"
    async with asyncio.timeout(PATIENCE):
        while (await raft.execute(there, name=CLIENTS))[0][0]:  # noqa: ASYNC110 - the server is asked
            await asyncio.sleep(PAUSE)


@platform_storm("P5", "A client commits, rolls back or is killed: does exactly what committed run?")
async def trials(raft: Raft) -> Finding:
    await raft.dispatcher()
    await raft.worker(slots=8)
    deaths = await run_client(raft)
    await no_client_is_left(raft)
    committed = {str(row[0]) for row in await raft.execute("SELECT job FROM trials")}
    await raft.done(PATIENCE, wanted=committed)
    effects, known = await raft.effects(), raft.ledger.jobs("enqueued")
    counts = Counts(
        jobs=len(committed),
        lost=len(committed - effects.keys()) + len(known - committed),
        phantoms=len((raft.ledger.jobs("start") | effects.keys()) - committed),
        double_runs=raft.ledger.audit().double_runs,
        double_effects=sum(count - 1 for count in effects.values()),
    )
    unheard = len(committed - known)
    figure = f"{raft.pace.trials} trials, {deaths} died, {unheard} committed unheard; {counts}"
    tried = len(raft.ledger.jobs("perhaps"))
    return Finding(figure, tried == raft.pace.trials and counts.violations == 0, counts)
