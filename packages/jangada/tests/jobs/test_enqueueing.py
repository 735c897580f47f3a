"""What a new job may be, one at a time and many by one statement."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.exc import ProgrammingError

from jangada.commits import Notice
from jangada.db import Database, new_id
from jangada.jobs import service
from jangada.jobs.errors import InvalidJob, JobNotStorable, JobTooLarge
from jangada.jobs.limits import Concurrency
from jangada.jobs.models import Job, JobState
from jangada.jobs.payloads import MAX_ARGS_BYTES, MAX_METADATA_BYTES
from jangada.jobs.schemas import JobArgs, NewJob
from jangada.telemetry import bound
from jangada.testing import Person, make_person

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


class Sort(JobArgs):
    kind: ClassVar[str] = "test.sort"
    queue: ClassVar[str] = "letters"
    max_attempts: ClassVar[int] = 5
    text: str = ""


class Keep(JobArgs):
    kind: ClassVar[str] = "test.keep"
    kept: ClassVar[bool] = True


async def stored(database: Database, person: Person, *ids: UUID) -> list[Job]:
    async with database.read(person.tenant_id) as session:
        return [await service.get_job(session, person.tenant_id, id_) for id_ in ids]


async def enqueue_many(database: Database, person: Person, *jobs: JobArgs | NewJob) -> list[UUID]:
    async with database.transaction(person.tenant_id) as session:
        return await service.enqueue_many(session, jobs, tenant_id=person.tenant_id)


@pytest.fixture
def woken(database: Database) -> list[str]:
    """The queues whose dispatcher was told after a commit."""
    woken: list[str] = []

    async def notify(notices: frozenset[Notice]) -> None:
        woken.extend(notice.subject for notice in notices)

    database.notify = notify
    return woken


async def test_tags_and_metadata_are_kept_with_the_job(database: Database, person: Person) -> None:
    metadata = {"source": "shop", "nested": {"é": [1, None]}, "large": 2**60}
    async with database.transaction(person.tenant_id) as session:
        job = await service.enqueue(
            session, Sort(), tenant_id=person.tenant_id, tags=["a", "b c"], metadata=metadata
        )
    (found,) = await stored(database, person, job.id)
    assert (found.tags, found.metadata_, found.kept) == (["a", "b c"], metadata, False)


@pytest.mark.parametrize(
    ("options", "faults"),
    [
        ({"priority": 0}, ["/priority"]),
        ({"priority": 5}, ["/priority"]),
        ({"max_attempts": 0}, ["/max_attempts"]),
        ({"max_attempts": 10_001}, ["/max_attempts"]),
        ({"scheduled_at": datetime(2026, 3, 1)}, ["/scheduled_at"]),  # noqa: DTZ001 - as it comes
        ({"queue": ""}, ["/queue"]),
        ({"queue": "a\0"}, ["/queue"]),
        ({"tags": "urgent"}, ["/tags"]),
        ({"tags": [""]}, ["/tags"]),
        ({"tags": ["x" * 101]}, ["/tags"]),
        ({"tags": ["a"] * 21}, ["/tags"]),
        ({"priority": 9, "tags": ["\n"]}, ["/priority", "/tags"]),
    ],
)
async def test_a_wrong_property_is_named_before_anything_is_sent(
    database: Database, person: Person, options: dict[str, Any], faults: list[str]
) -> None:
    async with database.transaction(person.tenant_id) as session:
        with pytest.raises(InvalidJob, match=r"A job of kind test\.sort is wrong") as one:
            await service.enqueue(session, Sort(), tenant_id=person.tenant_id, **options)
        with pytest.raises(InvalidJob) as many:
            await service.enqueue_many(
                session, [Sort(), NewJob(Sort(), **options)], tenant_id=person.tenant_id
            )
        assert (await session.scalars(select(Job))).all() == []
    assert [[each.pointer for each in raised.value.errors] for raised in (one, many)] == [
        faults
    ] * 2


@pytest.mark.parametrize(
    ("job", "error"),
    [
        (NewJob(Sort(text="é" * (MAX_ARGS_BYTES // 2))), JobTooLarge),
        (NewJob(Sort(text="a\0")), JobNotStorable),
        (NewJob(Sort(), metadata={"a": "x" * MAX_METADATA_BYTES}), JobTooLarge),
        (NewJob(Sort(), metadata={"a": "\0"}), JobNotStorable),
    ],
)
async def test_what_no_row_can_carry_is_refused(
    database: Database, person: Person, job: NewJob, error: type[Exception]
) -> None:
    async with database.transaction(person.tenant_id) as session:
        with pytest.raises(error):
            await service.enqueue_many(session, [job], tenant_id=person.tenant_id)
        with pytest.raises(error):
            await service.enqueue(
                session, job.args, tenant_id=person.tenant_id, metadata=job.metadata
            )


async def test_many_jobs_are_rows_as_single_ones_are(
    database: Database, person: Person, woken: list[str]
) -> None:
    """Whatever one of them is by itself, and the ids come in the order of the jobs."""
    later = datetime.now(UTC) + HOUR
    chosen = new_id()
    jobs: list[JobArgs | NewJob] = [
        Sort(text='quotes " and \\ and {,} é \n'),
        NewJob(Sort(text="two"), id=chosen, priority=4, queue="other", max_attempts=1),
        NewJob(Sort(), scheduled_at=later, tags=["a,b", 'c"d'], metadata={"x": [{"y": None}]}),
        NewJob(Keep(), scheduled_at=later - 2 * HOUR),
        Sort(text="NULL"),
    ]
    with bound(request_id="request-1"):
        ids = await enqueue_many(database, person, *jobs)
    assert sorted(woken) == ["default", "letters", "other"]
    rows = await stored(database, person, *ids)
    texts = ['quotes " and \\ and {,} é \n', "two", "", None, "NULL"]
    assert [row.args.get("text") for row in rows] == texts
    assert [row.kind for row in rows] == [*["test.sort"] * 3, "test.keep", "test.sort"]
    assert [row.queue for row in rows] == ["letters", "other", "letters", "default", "letters"]
    assert [row.priority for row in rows] == [2, 4, 2, 2, 2]
    assert [row.max_attempts for row in rows] == [5, 1, 5, 20, 5]
    states = [JobState.AVAILABLE] * 5
    states[2] = JobState.SCHEDULED
    assert [row.state for row in rows] == states
    assert (rows[2].scheduled_at, rows[3].scheduled_at) == (later, later - 2 * HOUR)
    assert (rows[2].tags, rows[2].metadata_) == (["a,b", 'c"d'], {"x": [{"y": None}]})
    assert [row.kept for row in rows] == [False, False, False, True, False]
    assert {row.request_id for row in rows} == {"request-1"}
    assert {row.unique_key for row in rows} == {None}
    assert ids[1] == chosen


class Turn(JobArgs):
    kind: ClassVar[str] = "test.turn"
    concurrency: ClassVar[Concurrency | None] = Concurrency(per_key=1, key=lambda args: args.who)
    who: str = "Ana"


async def test_each_job_of_a_batch_has_its_concurrency_key(
    database: Database, person: Person
) -> None:
    jobs: list[JobArgs | NewJob] = [
        Turn(),
        Turn(who='a "b", \\'),
        NewJob(Turn(), concurrency_key="other"),
        Sort(),
    ]
    ids = await enqueue_many(database, person, *jobs)
    keys = [row.concurrency_key for row in await stored(database, person, *ids)]
    assert keys == ["Ana", 'a "b", \\', "other", None]


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20))
async def test_whatever_text_is_sent_is_what_comes_back(
    database: Database, person: Person, texts: list[str]
) -> None:
    wanted = [text.replace("\0", "") for text in texts]
    ids = await enqueue_many(database, person, *[Sort(text=text) for text in wanted])
    assert [row.args["text"] for row in await stored(database, person, *ids)] == wanted


async def test_a_large_batch_is_one_statement_in_the_callers_transaction(
    database: Database, person: Person, woken: list[str]
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction(person.tenant_id) as session:
            await service.enqueue_many(session, [Sort()] * 5000, tenant_id=person.tenant_id)
            raise ZeroDivisionError
    assert woken == []
    ids = await enqueue_many(database, person, *[Sort(text=str(n)) for n in range(5000)])
    assert woken == ["letters"]
    async with database.read(person.tenant_id) as session:
        rows = (await session.scalars(select(Job))).all()
    assert {row.id: row.args["text"] for row in rows} == {id_: str(n) for n, id_ in enumerate(ids)}


async def test_no_jobs_are_no_statement(
    database: Database, person: Person, woken: list[str]
) -> None:
    assert await enqueue_many(database, person) == []
    assert woken == []


async def test_no_job_is_made_for_another_tenant(database: Database, person: Person) -> None:
    other = await make_person(database, "Other")
    with pytest.raises(ProgrammingError, match="row-level security"):
        async with database.transaction(person.tenant_id) as session:
            await service.enqueue_many(session, [Sort()], tenant_id=other.tenant_id)
