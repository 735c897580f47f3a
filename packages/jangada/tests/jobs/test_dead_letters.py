"""Discarded jobs are found by what is known of them, and start again together."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import select, text, update

from jangada.commits import Notice
from jangada.crud import CursorSigner, PageRequest
from jangada.db import Database, utc_now
from jangada.jobs import dead_letters, service
from jangada.jobs.models import Job, JobState
from jangada.jobs.schemas import JobArgs, JobFilter
from jangada.testing import Person, make_person

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIGNER = CursorSigner(b"k" * 32)


class Deliver(JobArgs):
    kind: ClassVar[str] = "test.deliver"


class Charge(JobArgs):
    kind: ClassVar[str] = "test.charge"
    queue: ClassVar[str] = "money"


async def discarded(
    database: Database,
    person: Person,
    args: JobArgs | None = None,
    *codes: str,
    tags: tuple[str, ...] = (),
    **changes: Any,  # noqa: ANN401 - columns
) -> UUID:
    """A job that was discarded at noon, unless it is said otherwise."""
    errors = [{"code": code, "detail": "no"} for code in codes]
    columns = {"state": JobState.DISCARDED, "finished_at": NOON, "errors": errors} | changes
    async with database.transaction(person.tenant_id) as session:
        job = await service.enqueue(
            session, args or Deliver(), tenant_id=person.tenant_id, tags=tags
        )
        await session.execute(update(Job).where(Job.id == job.id).values(**columns))
    return job.id


async def read(database: Database, person: Person) -> dict[UUID, Job]:
    async with database.read(person.tenant_id) as session:
        return {job.id: job for job in await session.scalars(select(Job))}


async def available(database: Database, person: Person) -> set[UUID]:
    found = await read(database, person)
    return {id_ for id_, job in found.items() if job.state is JobState.AVAILABLE}


async def redrive(
    database: Database,
    person: Person,
    wanted: JobFilter | None = None,
    **how: Any,  # noqa: ANN401 - as redrive has it
) -> dead_letters.Redriven:
    async with database.transaction(person.tenant_id) as session:
        return await dead_letters.redrive(
            session, wanted or JobFilter(), tenant_id=person.tenant_id, **how
        )


@pytest.fixture
async def letters(database: Database, person: Person) -> dict[str, UUID]:
    """Dead letters that differ in one thing each, among jobs that are none."""
    made = {
        "plain": await discarded(database, person, None, "job.failed"),
        "charge": await discarded(database, person, Charge(), "job.failed"),
        "tagged": await discarded(database, person, None, "job.failed", tags=("vip", "é")),
        "down": await discarded(database, person, None, "job.failed", "service.unavailable"),
        "late": await discarded(database, person, None, "job.failed", finished_at=NOON + HOUR),
    }
    for state in set(JobState) - {JobState.DISCARDED, JobState.AVAILABLE}:
        await discarded(database, person, None, state=state)
    return made


FILTERS = [
    ({}, {"plain", "charge", "tagged", "down", "late"}),
    ({"kind": "test.charge"}, {"charge"}),
    ({"queue": "money"}, {"charge"}),
    ({"tag": "vip"}, {"tagged"}),
    ({"tag": "vi"}, set()),
    ({"error_code": "service.unavailable"}, {"down"}),
    ({"error_code": "job.failed"}, {"plain", "charge", "tagged", "late"}),
    ({"since": NOON + HOUR}, {"late"}),
    ({"until": NOON + HOUR}, {"plain", "charge", "tagged", "down"}),
    ({"since": NOON, "until": NOON + HOUR, "queue": "default", "tag": "é"}, {"tagged"}),
]


@pytest.mark.parametrize(("wanted", "names"), FILTERS)
async def test_dead_letters_are_listed_by_filter(
    database: Database,
    person: Person,
    letters: dict[str, UUID],
    *,
    wanted: dict[str, Any],
    names: set[str],
) -> None:
    """With all their errors."""
    filter_ = JobFilter(state=JobState.DISCARDED, **wanted)
    async with database.read(person.tenant_id) as session:
        page = await service.list_jobs(session, person.tenant_id, filter_, PageRequest(SIGNER))
    assert {job.id for job in page.data} == {letters[name] for name in names}
    assert all(job.errors for job in page.data)


@pytest.mark.parametrize(("wanted", "names"), FILTERS)
async def test_those_of_a_filter_are_redriven_and_no_others(
    database: Database,
    person: Person,
    letters: dict[str, UUID],
    *,
    wanted: dict[str, Any],
    names: set[str],
) -> None:
    before = await read(database, person)
    filter_ = JobFilter(**wanted)
    async with database.read(person.tenant_id) as session:
        expected, _ = await dead_letters.count_dead_letters(
            session, filter_, tenant_id=person.tenant_id
        )
    done = await redrive(database, person, filter_)
    assert (done.jobs, done.has_more) == (expected, False) == (len(names), False)
    assert await available(database, person) == {letters[name] for name in names}
    after = await read(database, person)
    untouched = {id_ for id_, job in after.items() if job.revision == before[id_].revision}
    assert untouched == before.keys() - {letters[name] for name in names}


async def test_a_filter_of_another_state_makes_no_difference(
    database: Database, person: Person, letters: dict[str, UUID]
) -> None:
    done = await redrive(database, person, JobFilter(state=JobState.COMPLETED))
    assert done.jobs == len(letters)


async def test_a_redriven_job_starts_anew_as_after_a_retry(
    database: Database, person: Person
) -> None:
    spent: dict[str, Any] = {"attempt": 20, "crashes": 3, "cancel_requested_at": NOON}
    one, other = [await discarded(database, person, None, "job.poison", **spent) for _ in range(2)]
    fresh = await discarded(database, person, None, attempt=1)
    async with database.transaction(person.tenant_id) as session:
        await service.retry(session, person.tenant_id, other)
    await redrive(database, person)
    rows = await read(database, person)
    names = (
        *("state", "attempt", "max_attempts", "crashes", "finished_at", "cancel_requested_at"),
        *("errors", "revision"),
    )
    first, second = ({name: getattr(rows[id_], name) for name in names} for id_ in (one, other))
    assert first == second
    assert (first["state"], first["max_attempts"], first["crashes"]) == ("available", 21, 0)
    assert rows[fresh].max_attempts == 20
    assert rows[one].scheduled_at > NOON


async def test_it_goes_on_some_at_a_time_and_wakes_each_queue_once(
    database: Database, person: Person
) -> None:
    made = [await discarded(database, person, Charge()) for _ in range(3)]
    made += [await discarded(database, person) for _ in range(2)]
    told: list[str] = []

    async def notify(notices: frozenset[Notice]) -> None:
        told.extend(sorted(notice.subject for notice in notices))

    database.notify = notify
    turns = [await redrive(database, person, limit=2)]
    while turns[-1].has_more:
        turns.append(await redrive(database, person, limit=2, after=turns[-1].last))
    assert [turn.jobs for turn in turns] == [2, 2, 1]
    assert told == ["money", "default", "money", "default"]
    assert await available(database, person) == set(made)


async def test_a_second_redrive_finds_nothing(
    database: Database, person: Person, letters: dict[str, UUID]
) -> None:
    assert (await redrive(database, person, limit=len(letters))).has_more is False
    before = await read(database, person)
    again = await redrive(database, person)
    assert (again.jobs, again.has_more, again.last) == (0, False, None)
    after = await read(database, person)
    assert [after[id_].revision for id_ in before] == [job.revision for job in before.values()]


async def test_what_fails_again_meanwhile_is_not_taken_again(
    database: Database, person: Person
) -> None:
    """Or a redrive of jobs that fail at once would never end."""
    await discarded(database, person)
    first = await redrive(database, person)
    async with database.transaction(person.tenant_id) as session:
        await session.execute(
            text("UPDATE jobs SET state = 'discarded', finished_at = clock_timestamp()")
        )
    assert (await redrive(database, person, JobFilter(until=first.until))).jobs == 0
    assert (await redrive(database, person)).jobs == 1


async def test_a_time_in_the_future_means_now(database: Database, person: Person) -> None:
    await discarded(database, person, finished_at=utc_now() + HOUR)
    done = await redrive(database, person, JobFilter(until=utc_now() + 2 * HOUR))
    assert done.jobs == 0
    assert done.until < utc_now() + HOUR


async def test_other_tenants_dead_letters_stay_dead(database: Database, person: Person) -> None:
    """Whatever the caller says: row-level security knows the session's tenant."""
    other = await make_person(database, "Other")
    theirs = await discarded(database, other)
    assert (await redrive(database, person)).jobs == 0
    async with database.transaction(person.tenant_id) as session:
        for tenant in (None, other.tenant_id):
            done = await dead_letters.redrive(session, JobFilter(), tenant_id=tenant)
            assert done.jobs == 0
    assert (await read(database, other))[theirs].state is JobState.DISCARDED


async def test_in_system_scope_all_tenants_are_redriven_or_one(
    database: Database, person: Person
) -> None:
    other = await make_person(database, "Other")
    mine = [await discarded(database, person) for _ in range(3)]
    theirs = [await discarded(database, other) for _ in range(3)]
    async with database.system_transaction("test") as session:
        done = await dead_letters.redrive(session, JobFilter(), tenant_id=None, limit=4)
    assert (done.jobs, done.has_more) == (4, True)
    async with database.system_transaction("test") as session:
        rest = await dead_letters.redrive(session, JobFilter(), tenant_id=None, after=done.last)
    assert (rest.jobs, rest.has_more) == (2, False)
    assert await available(database, person) == set(mine)
    assert await available(database, other) == set(theirs)
