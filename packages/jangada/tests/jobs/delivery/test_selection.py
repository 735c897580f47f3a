"""Whose job comes next: tenants in turn, in the order of each, as far as the limits allow."""

from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jangada.db import new_id
from jangada.jobs.delivery import selection
from jangada.jobs.delivery.allowance import Allowance
from jangada.jobs.delivery.dispatch import dispatch_round
from jangada.jobs.delivery.kinds import KindLimits
from jangada.jobs.delivery.selection import Candidate, take_turns
from jangada.jobs.delivery.tickets import Ticket
from jangada.jobs.models import Job
from jangada_queue.messages import OnOffer

if TYPE_CHECKING:
    from packages.jangada.tests.jobs.delivery.conftest import Bench

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)


class Rounds:
    """Rounds as a dispatcher has them: what was chosen stays on offer until it is taken."""

    def __init__(self, bench: "Bench", **limits: Any) -> None:  # noqa: ANN401 - of KindLimits
        self.bench = bench
        self.limits = {"test.greet": KindLimits("test.greet", **limits)} if limits else {}
        self.on_offer = OnOffer(0, "", frozenset(), ())
        self.until_more: timedelta | None = None

    async def next(self, need: int, *, kinds: frozenset[str] = frozenset()) -> list[Ticket]:
        async with dispatch_round(self.bench.connection, "default") as held:
            assert held is not None
            choice = await held.choose(need, self.on_offer, limits=self.limits, kinds=kinds)
        self.until_more = choice.until_more
        offers = [ticket.offer() for ticket in choice.tickets]
        self.on_offer = OnOffer(
            waiting=self.on_offer.waiting + len(offers),
            turn=str(choice.turn),
            keys=self.on_offer.keys | {offer.key for offer in offers},
            messages=(*self.on_offer.messages, *offers),
        )
        return choice.tickets

    def forget(self) -> None:
        """Nothing is on offer, as after a flush; the turn is lost with it."""
        self.on_offer = OnOffer(0, "", frozenset(), ())


async def enqueue(bench: "Bench", tenants: list[UUID], each: int, **how: Any) -> list[Job]:  # noqa: ANN401 - as enqueue has it
    return [await bench.enqueue(tenant_id=tenant, **how) for tenant in tenants for _ in range(each)]


async def people(bench: "Bench", count: int) -> list[UUID]:
    """Tenants in the order of their ids."""
    return sorted([await bench.other_tenant() for _ in range(count)])


async def test_tenants_take_turns_from_where_the_last_round_ended(bench: "Bench") -> None:
    tenants = await people(bench, 3)
    await enqueue(bench, tenants, 4)
    rounds = Rounds(bench)
    first = [ticket.tenant_id for ticket in await rounds.next(2)]
    second = [ticket.tenant_id for ticket in await rounds.next(2)]
    third = [ticket.tenant_id for ticket in await rounds.next(5)]
    assert first + second + third == (tenants * 3)


async def test_nobody_starves_whenever_the_turn_is_lost(bench: "Bench") -> None:
    """A dispatcher that takes over, or an emptied Valkey, begins the circle anew and goes round."""
    tenants = await people(bench, 5)
    await enqueue(bench, tenants, 3)
    rounds = Rounds(bench)
    await rounds.next(3)
    rounds.on_offer = replace(rounds.on_offer, turn="of another release")
    served = Counter([ticket.tenant_id for _ in range(3) for ticket in await rounds.next(2)])
    assert set(served) == set(tenants)


async def test_what_is_on_offer_is_not_chosen_again(bench: "Bench") -> None:
    jobs = await enqueue(bench, [bench.person.tenant_id], 7)
    rounds = Rounds(bench)
    chosen = [ticket.job_id for _ in range(3) for ticket in await rounds.next(3)]
    assert chosen == [job.id for job in jobs]
    assert await rounds.next(3) == []
    rounds.forget()
    assert [ticket.job_id for ticket in await rounds.next(3)] == chosen[:3]


async def test_priority_orders_the_jobs_of_one_tenant_alone(bench: "Bench") -> None:
    low, high = await people(bench, 2)
    late = await bench.enqueue(tenant_id=low, priority=4)
    urgent = [await bench.enqueue(tenant_id=high, priority=1) for _ in range(2)]
    soon = await bench.enqueue(tenant_id=low, priority=3)
    chosen = [ticket.job_id for ticket in await Rounds(bench).next(4)]
    assert chosen == [soon.id, urgent[0].id, late.id, urgent[1].id]


async def test_priority_orders_over_kinds_and_keys(bench: "Bench") -> None:
    jobs = [
        await bench.enqueue(concurrency_key=f"k{number}", priority=number % 4 + 1)
        for number in range(8)
    ]
    for job in jobs[::2]:
        await bench.change(job, kind="test.another")
    wanted = sorted(jobs, key=lambda job: (job.priority, job.scheduled_at))
    chosen = [ticket.job_id for ticket in await Rounds(bench).next(8)]
    assert chosen == [job.id for job in wanted]


async def test_a_kind_at_its_limit_keeps_nothing_waiting_behind_it(bench: "Bench") -> None:
    await enqueue(bench, [bench.person.tenant_id], 30, priority=1)
    other = await bench.enqueue(priority=4)
    await bench.change(other, kind="test.another")
    rounds = Rounds(bench, concurrency_limit=2)
    chosen = await rounds.next(16)
    assert [ticket.is_limited for ticket in chosen] == [True, True, False]
    assert chosen[2].job_id == other.id
    assert await rounds.next(16) == []


async def test_a_busy_key_keeps_other_keys_from_nothing(bench: "Bench") -> None:
    await enqueue(bench, [bench.person.tenant_id], 30, concurrency_key="busy")
    other = await bench.enqueue(concurrency_key="idle")
    chosen = await Rounds(bench, concurrency_per_key=1).next(16)
    assert [ticket.concurrency_key for ticket in chosen] == ["busy", "idle"]
    assert chosen[1].job_id == other.id


async def test_every_key_gets_its_turn_however_many_there_are(
    bench: "Bench", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MOST_LANES", 2)
    for number in range(12):
        await bench.enqueue(concurrency_key=f"k{number}")
    rounds, seen = Rounds(bench), set[str]()
    for _ in range(200):
        rounds.forget()
        await rounds.next(4)
        seen |= rounds.on_offer.keys
    assert len(seen) == 12


async def test_tenants_that_may_start_nothing_are_passed_over(bench: "Bench") -> None:
    """More of them than a round has room for, each at its own limit."""
    tenants = await people(bench, 9)
    started = await enqueue(bench, tenants[:8], 1)
    worker = await bench.worker()
    for job in started:
        await bench.start(job, worker)
    await enqueue(bench, tenants, 2)
    chosen = await Rounds(bench, concurrency_per_key=1).next(2)
    assert [ticket.tenant_id for ticket in chosen] == [tenants[8]]


async def test_a_round_looks_at_so_many_tenants_and_the_next_one_further(
    bench: "Bench", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MOST_TENANTS", 2)
    tenants = await people(bench, 4)
    worker = await bench.worker()
    for job in await enqueue(bench, tenants[:3], 1):
        await bench.start(job, worker)
    await enqueue(bench, tenants, 1)
    rounds = Rounds(bench, concurrency_per_key=1)
    assert await rounds.next(1) == []
    assert [ticket.tenant_id for ticket in await rounds.next(1)] == [tenants[3]]


async def test_only_known_kinds_are_chosen_and_others_cost_nothing(bench: "Bench") -> None:
    for job in await enqueue(bench, [bench.person.tenant_id], 5, priority=1):
        await bench.change(job, kind="test.future")
    known = await bench.enqueue()
    chosen = await Rounds(bench).next(3, kinds=frozenset({"test.greet"}))
    assert [ticket.job_id for ticket in chosen] == [known.id]


def candidates(numbers: list[tuple[int, int, int]]) -> list[list[Candidate]]:
    """Seats of (tenant, kind, key), in the order of the tenants."""
    seats = defaultdict(list)
    for place, (tenant, kind, key) in enumerate(numbers):
        when = START + timedelta(seconds=place)
        job = Candidate(UUID(int=tenant), new_id(), 0, str(kind), False, str(key), 2, when)
        seats[tenant].append(job)
    return [seats[tenant] for tenant in sorted(seats)]


SMALL = st.integers(min_value=0, max_value=3)


@given(
    st.lists(st.tuples(SMALL, SMALL, SMALL), max_size=30),
    st.integers(min_value=1, max_value=20),
    st.integers(min_value=1, max_value=4),
    st.integers(min_value=1, max_value=3),
)
def test_turns_are_fair_in_order_and_within_limits(
    numbers: list[tuple[int, int, int]], need: int, limit: int, per_key: int
) -> None:
    limits = {"0": KindLimits("0", concurrency_limit=limit, concurrency_per_key=per_key)}
    seats = candidates(numbers)
    taken = take_turns(seats, need, Allowance(limits))
    limited = [job for job in taken if job.kind == "0"]
    of_key = Counter((job.tenant_id, job.concurrency_key) for job in limited)
    free = {job.job_id for seat in seats for job in seat if job.kind != "0"}
    assert len(taken) <= need
    assert len(limited) <= limit
    assert max(of_key.values(), default=0) <= per_key
    assert len(taken) == need or free <= {job.job_id for job in taken}
    for tenant in {job.tenant_id for job in taken}:
        ours = [job.place for job in taken if job.tenant_id == tenant]
        assert ours == sorted(ours)
    # A tenant is served again only after all others that have a free job left were.
    served = Counter(job.tenant_id for job in taken)
    for seat in seats:
        has_left = any(job.job_id in free and job not in taken for job in seat)
        assert not has_left or max(served.values()) - served[seat[0].tenant_id] <= 1


async def test_what_is_on_offer_counts_towards_the_rate(bench: "Bench") -> None:
    """It will start before whatever is chosen now, though it isn't among the starts yet."""
    await enqueue(bench, [bench.person.tenant_id], 5)
    rounds = Rounds(bench, rate_starts=3, rate_period=timedelta(hours=1))
    assert len(await rounds.next(2)) == 2
    assert len(await rounds.next(5)) == 1
    assert await rounds.next(5) == []
