"""What the grant allows: never more than the limits, whoever published what."""

import asyncio
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from jangada.db import new_id, utc_now
from jangada.jobs.delivery.allowance import Allowance, Starts
from jangada.jobs.delivery.connection import Connection
from jangada.jobs.delivery.finish import finish
from jangada.jobs.delivery.grant import GrantedJob, grant
from jangada.jobs.delivery.kinds import KindFacts, KindLimits, facts_of, prune_starts, read_limits
from jangada.jobs.delivery.policy import completed
from jangada.jobs.delivery.sweep import sweep
from jangada.jobs.delivery.workers import NewWorker, bury, deregister, register
from jangada.jobs.errors import InvalidConcurrencyKey
from jangada.jobs.limits import Concurrency, RateLimit
from jangada.jobs.models import Job
from jangada.jobs.schemas import JobArgs
from jangada_queue.watch import Watch

if TYPE_CHECKING:
    from uuid import UUID

    from packages.jangada.tests.jobs.delivery.conftest import Bench

pytestmark = pytest.mark.anyio

KIND = "test.greet"
MINUTE = timedelta(minutes=1)


async def announce(bench: "Bench", *, slots: int = 4, **limits: object) -> "UUID":
    """A worker that knows the kind with these limits."""
    facts = KindFacts(KIND, "default", 20, **limits)  # type: ignore[arg-type] # as each test has them
    worker = NewWorker(new_id(), "pod", "host", 1, "0", ["default"], slots, [facts])
    await register(bench.connection, worker)
    return worker.id


async def limits_now(connection: Connection) -> dict[str, KindLimits]:
    return await read_limits(connection)


async def start(
    bench: "Bench", worker: "UUID", *jobs: Job, is_limited: bool = True
) -> list[GrantedJob]:
    wanted = [bench.limited_ticket(job) if is_limited else bench.ticket(job) for job in jobs]
    return await grant(bench.connection, worker, wanted)


async def test_no_more_of_a_kind_run_than_its_limit(bench: "Bench") -> None:
    worker = await announce(bench, concurrency_limit=2)
    jobs = [await bench.enqueue() for _ in range(5)]
    first = await start(bench, worker, *jobs)
    assert [job.job_id for job in first] == [job.id for job in jobs[:2]]
    assert all(job.is_limited for job in first)
    assert await start(bench, worker, *jobs[2:]) == []
    await finish(bench.connection, [completed(first[0], None)])
    assert [job.job_id for job in await start(bench, worker, *jobs[2:])] == [jobs[2].id]


async def test_a_key_is_a_tenants_own(bench: "Bench") -> None:
    worker, other = await announce(bench, concurrency_per_key=1), await bench.other_tenant()
    ours = [await bench.enqueue(concurrency_key=key) for key in ("a", "a", "b")]
    theirs = await bench.enqueue(tenant_id=other, concurrency_key="a")
    granted = await start(bench, worker, *ours, theirs)
    assert {job.job_id for job in granted} == {ours[0].id, ours[2].id, theirs.id}


async def test_jobs_without_a_key_share_the_empty_one(bench: "Bench") -> None:
    worker = await announce(bench, concurrency_per_key=1)
    granted = await start(bench, worker, await bench.enqueue(), await bench.enqueue())
    assert len(granted) == 1


async def test_a_ticket_from_before_the_limit_starts_nothing(bench: "Bench") -> None:
    """The dispatcher writes it anew, and then the limit counts."""
    worker = await announce(bench, concurrency_limit=1)
    job = await bench.enqueue()
    assert await start(bench, worker, job, is_limited=False) == []
    assert len(await start(bench, worker, job)) == 1


async def test_a_ticket_from_a_time_with_a_limit_starts_a_job_without_one(bench: "Bench") -> None:
    worker = await announce(bench)
    assert len(await start(bench, worker, await bench.enqueue(), await bench.enqueue())) == 2


async def test_rivals_together_do_not_exceed_a_limit(bench: "Bench") -> None:
    worker = await announce(bench, concurrency_limit=3, concurrency_per_key=2)
    jobs = [await bench.enqueue(concurrency_key=f"k{number % 3}") for number in range(24)]

    async def rival(part: list[Job]) -> list[GrantedJob]:
        async with bench.database.direct() as connection:
            wanted = [bench.limited_ticket(job) for job in part]
            return await grant(connection, worker, wanted)

    granted = await asyncio.gather(*(rival(jobs[number::6]) for number in range(6)))
    assert sum(map(len, granted)) == 3
    rows = [await bench.reload(job) for each in granted for job in each]
    assert max(Counter(row.concurrency_key for row in rows).values()) <= 2


async def test_a_rate_limit_counts_starts_and_not_jobs(bench: "Bench") -> None:
    worker = await announce(bench, rate_starts=2, rate_seconds=3600.0)
    jobs = [await bench.enqueue() for _ in range(3)]
    first = await start(bench, worker, *jobs)
    assert [job.job_id for job in first] == [job.id for job in jobs[:2]]
    await finish(bench.connection, [completed(job, None) for job in first])
    assert await start(bench, worker, jobs[2]) == []


async def test_starts_count_until_their_period_is_over(bench: "Bench") -> None:
    worker = await announce(bench, rate_starts=1, rate_seconds=3600.0)
    jobs = [await bench.enqueue() for _ in range(3)]
    await start(bench, worker, jobs[0])
    await age_starts(bench, timedelta(minutes=60))
    assert await start(bench, worker, jobs[1]) == []
    await age_starts(bench, timedelta(minutes=3))
    assert len(await start(bench, worker, jobs[1], jobs[2])) == 1


async def age_starts(bench: "Bench", by: timedelta) -> None:
    await bench.connection.execute("UPDATE job_starts SET at = at - %s", (by,))


async def test_a_rate_limit_per_tenant_is_each_tenants_own(bench: "Bench") -> None:
    worker = await announce(bench, rate_starts=1, rate_seconds=60.0, rate_per_tenant=True)
    other = await bench.other_tenant()
    ours = [await bench.enqueue() for _ in range(2)]
    theirs = await bench.enqueue(tenant_id=other)
    granted = await start(bench, worker, *ours, theirs)
    assert {job.job_id for job in granted} == {ours[0].id, theirs.id}
    assert await start(bench, worker, ours[1]) == []


async def test_old_starts_are_forgotten(bench: "Bench") -> None:
    worker = await announce(bench, rate_starts=9, rate_seconds=60.0)
    await start(bench, worker, await bench.enqueue())
    assert await prune_starts(bench.connection) == 0
    await age_starts(bench, 3 * MINUTE)
    assert await prune_starts(bench.connection) == 1


async def test_the_strictest_of_what_living_workers_say_holds(bench: "Bench") -> None:
    """During a rollout two releases are at work."""
    old = await announce(bench, concurrency_limit=1, rate_starts=10, rate_seconds=1.0)
    new = await announce(bench, concurrency_limit=5, rate_starts=120, rate_seconds=60.0)
    strict = KindLimits(KIND, 1, None, 120, MINUTE)
    assert await limits_now(bench.connection) == {KIND: strict}
    await deregister(bench.connection, [old])
    assert await limits_now(bench.connection) == {KIND: KindLimits(KIND, 5, None, 120, MINUTE)}
    third = await announce(bench, concurrency_limit=2)
    assert (await limits_now(bench.connection))[KIND].concurrency_limit == 2
    await bury(bench.connection, [third])
    assert (await limits_now(bench.connection))[KIND].concurrency_limit == 5
    await bury(bench.connection, [new])
    assert (await limits_now(bench.connection))[KIND].concurrency_limit == 5


async def test_a_limit_that_only_a_dead_worker_named_ends_with_the_sweep(bench: "Bench") -> None:
    await bench.silence(await announce(bench, concurrency_limit=1), 60)
    await announce(bench)
    watch = Watch(timedelta(seconds=30))
    for ago in (31, 17, 3):
        watch.see(utc_now() - timedelta(seconds=ago), time.monotonic() - ago)
    swept = await sweep(bench.connection, watch)
    assert len(swept.workers) == 1
    assert await limits_now(bench.connection) == {}


async def test_workers_that_register_at_once_leave_out_nobody(bench: "Bench") -> None:
    async def one(limit: int) -> None:
        async with bench.database.direct() as connection:
            facts = KindFacts(KIND, "default", 20, concurrency_limit=limit)
            await register(connection, NewWorker(new_id(), "p", "h", 1, "0", [], 1, [facts]))

    await asyncio.gather(*(one(limit) for limit in (7, 3, 5, 4, 6)))
    assert (await limits_now(bench.connection))[KIND].concurrency_limit == 3


class Deliver(JobArgs):
    kind: ClassVar[str] = "test.deliver"
    queue: ClassVar[str] = "mail"
    concurrency: ClassVar = Concurrency(limit=10, per_key=2, key=lambda args: args.domain)
    rate_limit: ClassVar = RateLimit(100, per=MINUTE, per_tenant=True)
    domain: str


def test_what_is_declared_is_what_is_announced() -> None:
    facts = facts_of(Deliver)
    assert facts == KindFacts("test.deliver", "mail", 20, False, 10, 2, 100, 60.0, True)


@pytest.mark.parametrize("wrong", [{}, {"limit": 0}, {"limit": 3, "per_key": 0}])
def test_a_concurrency_limits_something(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="1 at least"):
        Concurrency(**wrong)


@pytest.mark.parametrize(("starts", "seconds"), [(0, 60), (1, 0.01), (1, 40 * 86400)])
def test_a_rate_limit_is_one_that_can_be_kept(starts: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="100 ms to 31 days"):
        RateLimit(starts, per=timedelta(seconds=seconds))


async def test_the_key_is_made_of_the_arguments_unless_it_is_given(bench: "Bench") -> None:
    args = Deliver(domain="example.com")
    made = await bench.enqueue(args=args)
    given = await bench.enqueue(args=args, concurrency_key="another")
    assert (made.concurrency_key, given.concurrency_key) == ("example.com", "another")
    assert made.lane != given.lane


@pytest.mark.parametrize("key", ["x" * 201, "a\0b"])
async def test_a_key_that_cannot_be_stored_is_refused(bench: "Bench", key: str) -> None:
    with pytest.raises(InvalidConcurrencyKey):
        await bench.enqueue(concurrency_key=key)


def test_an_allowance_says_when_a_rate_allows_more() -> None:
    limits = {KIND: KindLimits(KIND, rate_starts=2, rate_period=MINUTE)}
    allowance = Allowance(limits)
    allowance.count_starts([Starts(KIND, "", 2, timedelta(seconds=7))])
    assert allowance.until_more is None
    assert not allowance.take(KIND, new_id(), "")
    assert allowance.until_more == timedelta(seconds=7)
    assert allowance.exhausted() == [KIND]
