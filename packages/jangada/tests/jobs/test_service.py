"""Jobs as rows: what each verb does in each state, alone and against another transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.commits import Notice
from jangada.crud import CursorSigner, InvalidCursor, PageRequest
from jangada.db import Database, new_id
from jangada.jobs import service
from jangada.jobs.errors import (
    JobAlreadyFinished,
    JobNotFound,
    JobNotRetryable,
    JobNotStorable,
    JobTooLarge,
)
from jangada.jobs.models import FINAL_STATES, WAITING_STATES, Job, JobState
from jangada.jobs.payloads import MAX_ARGS_BYTES
from jangada.jobs.schemas import JobArgs, JobFilter
from jangada.telemetry import bound
from jangada.testing import Person, eventually, make_person

pytestmark = pytest.mark.anyio

SIGNER = CursorSigner(b"k" * 32)
PATIENCE = 30


class Weigh(JobArgs):
    """A job with arguments of any size."""

    kind = "test.weigh"
    queue = "scales"
    max_attempts = 7

    load: str = ""
    grams: float = 0
    pieces: int = 0


@pytest.fixture
def told(database: Database) -> list[tuple[str, str]]:
    """The notices of committed transactions."""
    told: list[tuple[str, str]] = []

    async def notify(notices: frozenset[Notice]) -> None:
        told.extend((notice.topic, notice.subject) for notice in notices)

    database.notify = notify
    return told


async def enqueued(database: Database, person: Person, **changes: Any) -> UUID:  # noqa: ANN401 - columns
    """A job of the person's tenant, brought into a state by force."""
    async with database.transaction(person.tenant_id) as session:
        job = await service.enqueue(session, Weigh(), tenant_id=person.tenant_id)
        if changes:
            await session.execute(update(Job).where(Job.id == job.id).values(**changes))
    return job.id


async def read(database: Database, person: Person, id_: UUID) -> Job:
    async with database.read(person.tenant_id) as session:
        return await service.get_job(session, person.tenant_id, id_)


async def test_an_enqueued_job_waits_in_the_callers_transaction(
    database: Database, person: Person, told: list[tuple[str, str]]
) -> None:
    with bound(request_id="request-1"):
        async with database.transaction(person.tenant_id) as session:
            job = await service.enqueue(
                session, Weigh(load="é"), tenant_id=person.tenant_id, created_by=person.user.id
            )
            assert told == []
    assert told == [("offer", "scales")]
    stored = await read(database, person, job.id)
    assert (stored.state, stored.attempt, stored.max_attempts) == (JobState.AVAILABLE, 0, 7)
    assert (stored.kind, stored.queue, stored.priority) == ("test.weigh", "scales", 2)
    assert stored.args == {"load": "é", "grams": 0.0, "pieces": 0}
    assert (stored.request_id, stored.created_by) == ("request-1", person.user.id)
    assert (stored.result, stored.errors, stored.traceparent) == (None, [], None)
    assert stored.scheduled_at == job.scheduled_at


async def test_no_commit_no_job_and_no_notice(
    database: Database, person: Person, told: list[tuple[str, str]]
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction(person.tenant_id) as session:
            job = await service.enqueue(session, Weigh(), tenant_id=person.tenant_id)
            raise ZeroDivisionError
    with pytest.raises(JobNotFound):
        await read(database, person, job.id)
    assert told == []


async def test_each_property_of_a_job_can_be_chosen(database: Database, person: Person) -> None:
    id_ = new_id()
    async with database.transaction(person.tenant_id) as session:
        await service.enqueue(
            session,
            Weigh(),
            tenant_id=person.tenant_id,
            id=id_,
            queue="other",
            max_attempts=1,
            priority=4,
        )
    stored = await read(database, person, id_)
    assert (stored.queue, stored.max_attempts, stored.priority) == ("other", 1, 4)


@pytest.mark.parametrize(
    ("ahead", "state"),
    [(timedelta(hours=1), JobState.SCHEDULED), (timedelta(hours=-1), JobState.AVAILABLE)],
)
async def test_a_job_is_scheduled_while_its_time_lies_ahead(
    database: Database, person: Person, ahead: timedelta, state: JobState
) -> None:
    due = datetime.now(UTC) + ahead
    async with database.transaction(person.tenant_id) as session:
        job = await service.enqueue(session, Weigh(), tenant_id=person.tenant_id, scheduled_at=due)
        assert (job.state, job.scheduled_at) == (state, due)
    stored = await read(database, person, job.id)
    assert (stored.state, stored.scheduled_at) == (state, due)


async def test_arguments_have_64_kib(database: Database, person: Person) -> None:
    spare = MAX_ARGS_BYTES - len(Weigh().model_dump_json())
    async with database.transaction(person.tenant_id) as session:
        await service.enqueue(session, Weigh(load="x" * spare), tenant_id=person.tenant_id)
        for load in ("x" * (spare + 1), "é" * (spare // 2 + 1)):
            with pytest.raises(JobTooLarge) as raised:
                await service.enqueue(session, Weigh(load=load), tenant_id=person.tenant_id)
            assert [fault.pointer for fault in raised.value.errors] == ["/args"]


async def test_arguments_are_what_was_given(database: Database, person: Person) -> None:
    args = Weigh(load='\\u0000 " \u2028 \U0001f6f6', grams=float("inf"), pieces=10**30)
    async with database.transaction(person.tenant_id) as session:
        job = await service.enqueue(session, args, tenant_id=person.tenant_id)
    stored = await read(database, person, job.id)
    assert stored.args == {"load": args.load, "grams": None, "pieces": 10**30}


@pytest.mark.parametrize("load", ["\0", "a\0b", "\\\0", "\\\\\0"])
async def test_a_nul_in_the_arguments_is_refused_by_name(
    database: Database, person: Person, load: str
) -> None:
    async with database.transaction(person.tenant_id) as session:
        with pytest.raises(JobNotStorable) as raised:
            await service.enqueue(session, Weigh(load=load), tenant_id=person.tenant_id)
    assert [fault.pointer for fault in raised.value.errors] == ["/args"]


async def test_a_foreign_job_is_absent_to_every_verb(database: Database) -> None:
    """In system scope, too: the verbs say the tenant themselves."""
    one, other = await make_person(database, "One"), await make_person(database, "Other")
    id_ = await enqueued(database, other)
    verbs = (service.get_job, service.cancel, service.retry)
    for scope in (database.transaction(one.tenant_id), database.system_transaction("test")):
        async with scope as session:
            for verb in verbs:
                with pytest.raises(JobNotFound):
                    await verb(session, one.tenant_id, id_)
    assert (await read(database, other, id_)).revision == 1


@pytest.mark.parametrize("state", WAITING_STATES)
async def test_a_waiting_job_is_cancelled_at_once(
    database: Database, person: Person, told: list[tuple[str, str]], state: JobState
) -> None:
    id_ = await enqueued(database, person, state=state)
    told.clear()
    async with database.transaction(person.tenant_id) as session:
        job = await service.cancel(session, person.tenant_id, id_)
        assert job.state is JobState.CANCELLED
    stored = await read(database, person, id_)
    assert (stored.state, stored.revision) == (JobState.CANCELLED, 2)
    assert stored.finished_at is not None
    assert told == []


async def test_a_running_job_is_asked_once_and_goes_on_until_it_stops(
    database: Database, person: Person, told: list[tuple[str, str]]
) -> None:
    id_ = await enqueued(database, person, state=JobState.RUNNING, attempt=1)
    told.clear()
    for _ in range(2):
        async with database.transaction(person.tenant_id) as session:
            job = await service.cancel(session, person.tenant_id, id_)
        assert (job.state, job.finished_at, job.revision) == (JobState.RUNNING, None, 2)
        assert job.cancel_requested_at is not None
    assert told == [("cancel", str(id_))]


async def test_cancelling_a_cancelled_job_changes_nothing(
    database: Database, person: Person
) -> None:
    """Also where its handler cancelled it, so that nobody had asked."""
    id_ = await enqueued(database, person, state=JobState.CANCELLED)
    async with database.transaction(person.tenant_id) as session:
        job = await service.cancel(session, person.tenant_id, id_)
    assert (job.state, job.revision, job.cancel_requested_at) == (JobState.CANCELLED, 1, None)


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.DISCARDED])
@pytest.mark.parametrize("asked", [None, datetime(2026, 3, 1, tzinfo=UTC)])
async def test_what_has_ended_otherwise_cannot_be_cancelled(
    database: Database, person: Person, state: JobState, asked: datetime | None
) -> None:
    id_ = await enqueued(database, person, state=state, cancel_requested_at=asked)
    with pytest.raises(JobAlreadyFinished, match=f"is {state}"):
        async with database.transaction(person.tenant_id) as session:
            await service.cancel(session, person.tenant_id, id_)


@pytest.mark.parametrize(
    "state",
    [JobState.DISCARDED, JobState.CANCELLED, JobState.SCHEDULED, JobState.RETRYABLE],
)
async def test_what_waits_or_was_given_up_can_be_tried_again(
    database: Database, person: Person, told: list[tuple[str, str]], state: JobState
) -> None:
    long_ago = datetime(2026, 3, 1, tzinfo=UTC)
    id_ = await enqueued(
        database,
        person,
        state=state,
        attempt=7,
        crashes=2,
        finished_at=long_ago,
        cancel_requested_at=long_ago,
        scheduled_at=datetime(2036, 3, 1, tzinfo=UTC),
    )
    told.clear()
    async with database.transaction(person.tenant_id) as session:
        await service.retry(session, person.tenant_id, id_)
    job = await read(database, person, id_)
    assert (job.state, job.attempt, job.max_attempts) == (JobState.AVAILABLE, 7, 8)
    assert (job.crashes, job.finished_at, job.cancel_requested_at) == (0, None, None)
    assert job.scheduled_at < datetime(2036, 1, 1, tzinfo=UTC)
    assert told == [("wake", "scales")]


async def test_a_job_that_may_start_already_keeps_its_place(
    database: Database, person: Person
) -> None:
    before = datetime(2026, 3, 1, tzinfo=UTC)
    id_ = await enqueued(database, person, state=JobState.AVAILABLE, scheduled_at=before)
    async with database.transaction(person.tenant_id) as session:
        job = await service.retry(session, person.tenant_id, id_)
    assert (job.state, job.scheduled_at) == (JobState.AVAILABLE, before)


async def test_a_job_with_attempts_left_gets_no_more(database: Database, person: Person) -> None:
    id_ = await enqueued(database, person, state=JobState.CANCELLED, attempt=2)
    async with database.transaction(person.tenant_id) as session:
        job = await service.retry(session, person.tenant_id, id_)
    assert job.max_attempts == 7


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.COMPLETED])
async def test_what_runs_or_is_done_is_not_tried_again(
    database: Database, person: Person, state: JobState
) -> None:
    id_ = await enqueued(database, person, state=state)
    with pytest.raises(JobNotRetryable, match=f"is {state}"):
        async with database.transaction(person.tenant_id) as session:
            await service.retry(session, person.tenant_id, id_)


async def listed(
    database: Database, person: Person, filter_: JobFilter, cursor: str | None = None
) -> tuple[list[UUID], str | None]:
    async with database.read(person.tenant_id) as session:
        page = await service.list_jobs(
            session, person.tenant_id, filter_, PageRequest(SIGNER, 2, cursor)
        )
    return [job.id for job in page.data], page.next_cursor


async def test_lists_are_newest_first_in_pages(database: Database) -> None:
    one, other = await make_person(database, "One"), await make_person(database, "Other")
    ids = [await enqueued(database, one) for _ in range(5)]
    await enqueued(database, other)
    seen: list[UUID] = []
    cursor: str | None = None
    for _ in range(3):
        found, cursor = await listed(database, one, JobFilter(), cursor)
        seen += found
    assert seen == ids[::-1]
    assert cursor is None


async def test_lists_show_what_the_filter_says(database: Database, person: Person) -> None:
    running = await enqueued(database, person, state=JobState.RUNNING)
    waiting = await enqueued(database, person, queue="other")
    for filter_, expected in (
        (JobFilter(state=JobState.RUNNING), [running]),
        (JobFilter(queue="other"), [waiting]),
        (JobFilter(kind="test.weigh"), [waiting, running]),
        (JobFilter(kind="test.none"), []),
        (JobFilter(state=JobState.AVAILABLE, queue="scales"), []),
    ):
        assert (await listed(database, person, filter_))[0] == expected


async def test_a_cursor_serves_one_filter_and_one_tenant(database: Database) -> None:
    one, other = await make_person(database, "One"), await make_person(database, "Other")
    for _ in range(3):
        await enqueued(database, one)
    _, cursor = await listed(database, one, JobFilter())
    assert cursor is not None
    for person, filter_ in ((one, JobFilter(queue="scales")), (other, JobFilter())):
        with pytest.raises(InvalidCursor):
            await listed(database, person, filter_, cursor)


async def grant(session: AsyncSession, id_: UUID) -> None:
    await session.execute(
        text("UPDATE jobs SET state = 'running', attempt = attempt + 1 WHERE id = :id"),
        {"id": id_},
    )


async def finish(session: AsyncSession, id_: UUID) -> None:
    await session.execute(
        text("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = :id"),
        {"id": id_},
    )


async def one_waits(session: AsyncSession) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    await eventually(lambda: session.scalar(waiting))


type Verb = Callable[[AsyncSession, UUID, UUID], Awaitable[Job]]


async def look_then(verb: Verb, database: Database, person: Person, id_: UUID) -> Job:
    """As an endpoint does that has read the job before it acts on it."""
    async with database.transaction(person.tenant_id) as session:
        await service.get_job(session, person.tenant_id, id_)
        return await verb(session, person.tenant_id, id_)


async def meanwhile(
    database: Database,
    person: Person,
    id_: UUID,
    *,
    verb: Verb,
    first: Callable[[AsyncSession, UUID], Awaitable[None]],
) -> Job:
    """The verb, while another transaction that was first has not committed yet."""
    async with database.transaction(person.tenant_id) as session:
        await first(session, id_)
        second = asyncio.create_task(look_then(verb, database, person, id_))
        await one_waits(session)
    return await second


async def test_a_job_that_is_granted_meanwhile_is_asked_to_stop(
    database: Database, person: Person
) -> None:
    """Were it cancelled in place, its worker would go on with a job that nobody waits for."""
    id_ = await enqueued(database, person)
    job = await meanwhile(database, person, id_, verb=service.cancel, first=grant)
    assert (job.state, job.attempt) == (JobState.RUNNING, 1)
    assert job.cancel_requested_at is not None


async def test_a_job_that_is_granted_meanwhile_is_not_started_twice(
    database: Database, person: Person
) -> None:
    id_ = await enqueued(database, person)
    with pytest.raises(JobNotRetryable):
        await meanwhile(database, person, id_, verb=service.retry, first=grant)
    assert (await read(database, person, id_)).state is JobState.RUNNING


async def test_a_job_that_ends_meanwhile_cannot_be_cancelled(
    database: Database, person: Person
) -> None:
    id_ = await enqueued(database, person, state=JobState.RUNNING)
    with pytest.raises(JobAlreadyFinished):
        await meanwhile(database, person, id_, verb=service.cancel, first=finish)


async def test_of_many_cancels_at_once_one_counts(database: Database, person: Person) -> None:
    id_ = await enqueued(database, person)
    jobs = await asyncio.gather(
        *(look_then(service.cancel, database, person, id_) for _ in range(5))
    )
    assert {(job.state, job.revision) for job in jobs} == {(JobState.CANCELLED, 2)}


STEPS = st.lists(st.sampled_from(["cancel", "retry", "grant", "finish"]), min_size=1, max_size=8)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
async def test_whatever_happens_to_a_job_its_row_makes_sense(
    database: Database, person: Person, steps: list[str]
) -> None:
    """Revisions only grow, attempts never shrink, and what has ended says when."""
    id_ = await enqueued(database, person)
    before = await read(database, person, id_)
    for step in steps:
        await take(step, database, person, before)
        after = await read(database, person, id_)
        assert after.attempt >= before.attempt
        assert after.max_attempts > after.attempt or after.state is not JobState.AVAILABLE
        assert (after.finished_at is not None) == (after.state in FINAL_STATES)
        if step in {"cancel", "retry"}:
            grown = after.revision - before.revision
            assert grown == (shown(after) != shown(before))
        before = after


async def take(step: str, database: Database, person: Person, before: Job) -> None:
    verbs: dict[str, Verb] = {"cancel": service.cancel, "retry": service.retry}
    async with database.transaction(person.tenant_id) as session:
        if step == "grant" and before.state is JobState.AVAILABLE:
            await grant(session, before.id)
        elif step == "finish" and before.state is JobState.RUNNING:
            await finish(session, before.id)
        elif step in verbs:
            try:
                await verbs[step](session, person.tenant_id, before.id)
            except (JobAlreadyFinished, JobNotRetryable):
                assert before.state in {*FINAL_STATES, JobState.RUNNING}


def shown(job: Job) -> tuple[object, ...]:
    return job.state, job.cancel_requested_at, job.scheduled_at, job.finished_at
