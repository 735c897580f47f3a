"""What a round costs however much waits, and how long a flood delays those who are not in it.

Rounds choose from a queue of one job, and from queues that are full in different ways. The flood is
100,000 jobs of one tenant, beside which another tenant's batch of 500 is timed, and before it too;
`jangada dispatcher` and `jangada worker` run as processes of their own.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from figures import Figure, Promise, report
from imports import HERE, POLL, program, servers

from jangada.config import load_settings
from jangada.jobs.delivery.connection import indexed_scope
from jangada.jobs.delivery.dispatch import dispatch_round
from jangada.jobs.delivery.kinds import KindLimits
from jangada.jobs.models import JobState
from jangada.runtime import Runtime, open_runtime
from jangada_queue.messages import OnOffer
from jangada_queue.signals import tell

ROUNDS, NEED, BATCH, FLOOD = 100, 8, 500, 100_000
ROUND_FLOOR, FLOOD_FLOOR = 0.1, 0.4
"""A round takes at most ten times that of a queue of one job; a batch 2.5 times its time alone."""

TENANTS = """
    INSERT INTO tenants (id, name, kind)
    SELECT gen_random_uuid(), 'Bench', 'personal' FROM generate_series(1, 10000)
    RETURNING id"""
INSERT = """
    INSERT INTO jobs (tenant_id, id, kind, queue, state, args, max_attempts, concurrency_key)
    SELECT {tenant}, uuidv7(), {kind}, '{queue}', 'available', '{{}}', 20, {key}
    FROM {source}"""
ONE_TENANT = "(SELECT min(id::text)::uuid FROM tenants)"
MANY = f"generate_series(1, {FLOOD}) AS n"
FULL = {
    "one job": (ONE_TENANT, "'ping'", "NULL", "generate_series(1, 1)", {}),
    "10,000 tenants": ("id", "'ping'", "NULL", "tenants", {}),
    "100,000 of one tenant": (ONE_TENANT, "'ping'", "NULL", MANY, {}),
    "100,000 of a kind at its limit": (
        *(ONE_TENANT, f"CASE WHEN n < {FLOOD} THEN 'full' ELSE 'ping' END", "NULL", MANY),
        {"full": KindLimits("full", concurrency_limit=0)},
    ),
    "100,000 of one key, one at once": (
        *(ONE_TENANT, "'ping'", "'busy'", MANY),
        {"ping": KindLimits("ping", concurrency_per_key=1)},
    ),
    "100,000 of 10,000 keys": (
        *(ONE_TENANT, "'ping'", "n % 10000", MANY),
        {"ping": KindLimits("ping", concurrency_per_key=1)},
    ),
}


async def rounds(runtime: Runtime, name: str) -> Figure:
    """Rounds a second of a queue that is full in this way; what is chosen stays on offer."""
    tenant, kind, key, source, limits = FULL[name]
    fill = INSERT.format(tenant=tenant, kind=kind, key=key, source=source, queue="bench")
    on_offer, rates = OnOffer(0, "", frozenset(), ()), []
    async with runtime.database.direct() as connection:
        async with indexed_scope(connection, "bench"):
            await connection.execute("DELETE FROM jobs")
        await connection.execute("VACUUM jobs")
        async with indexed_scope(connection, "bench"):
            await connection.execute(fill.encode())
        for _ in range(ROUNDS):
            began = time.perf_counter()
            async with dispatch_round(connection, "bench") as held:
                assert held is not None
                choice = await held.choose(NEED, on_offer, limits=limits)
            rates.append(1 / (time.perf_counter() - began))
            out = [*on_offer.keys, *(ticket.key for ticket in choice.tickets)][-2 * NEED :]
            on_offer = OnOffer(0, str(choice.turn), frozenset(out), ())
    return Figure(name, "rounds/s", tuple(rates))


async def batch(runtime: Runtime, tenant: UUID, count: int) -> None:
    """Enqueue so many jobs of a tenant at once."""
    source = f"generate_series(1, {count})"
    fill = INSERT.format(
        tenant=f"'{tenant}'", kind="'ping'", key="NULL", source=source, queue="default"
    )
    async with runtime.database.direct() as connection, indexed_scope(connection, "bench"):
        await connection.execute(fill.encode())
    await tell(runtime.queue, wake=["default"])


async def jobs_a_second(runtime: Runtime, tenant: UUID) -> float:
    """How fast a batch of a tenant that has nothing else is done."""
    began = time.perf_counter()
    await batch(runtime, tenant, BATCH)
    left = "SELECT count(*) FROM jobs WHERE tenant_id = %s AND state <> %s"
    async with runtime.database.direct() as connection:
        while True:
            async with indexed_scope(connection, "bench"):
                cursor = await connection.execute(left, (tenant, JobState.COMPLETED))
                row = await cursor.fetchone()
            if row is not None and row[0] == 0:
                return BATCH / (time.perf_counter() - began)
            await asyncio.sleep(POLL)


async def flood(runtime: Runtime, tenants: Sequence[UUID], runs: int) -> Promise:
    flooding, warm_up, *others = tenants
    await jobs_a_second(runtime, warm_up)
    alone = [await jobs_a_second(runtime, tenant) for tenant in others[:runs]]
    await batch(runtime, flooding, FLOOD)
    beside = [await jobs_a_second(runtime, tenant) for tenant in others[runs : 2 * runs]]
    return Promise(
        Figure("a batch of 500 beside a flood of 100,000", "jobs/s", tuple(beside)),
        Figure("a batch of 500 alone", "jobs/s", tuple(alone)),
        FLOOD_FLOOR,
    )


async def make_tenants(runtime: Runtime) -> list[UUID]:
    async with runtime.database.direct() as connection, indexed_scope(connection, "bench"):
        cursor = await connection.execute(TENANTS.encode())
        return [row[0] for row in await cursor.fetchall()]


async def measure(runs: int) -> int:
    async with open_runtime(load_settings()) as runtime:
        tenants = await make_tenants(runtime)
        bare, *full = [await rounds(runtime, name) for name in FULL]
        code = report(
            f"Rounds of {NEED} jobs, median of {ROUNDS}",
            [Promise(figure, bare, ROUND_FLOOR) for figure in full],
        )
        with program("dispatcher"), program("worker"):
            promise = await flood(runtime, tenants, runs)
        return code | report(f"A flood, median of {runs}", [promise])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with (
        tempfile.TemporaryDirectory(prefix=".bench-", dir=HERE.parent) as folder,
        servers(Path(folder)),
    ):
        os.environ["JANGADA_WORKER__SLOTS"] = "10"
        return asyncio.run(measure(given.runs))


if __name__ == "__main__":
    sys.exit(main())
