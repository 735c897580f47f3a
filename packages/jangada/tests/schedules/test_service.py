"""Verbs on schedules."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.crud import CursorSigner, PageRequest
from jangada.db import Database, new_id
from jangada.errors import JangadaError
from jangada.jobs.delivery.kinds import KindFacts
from jangada.jobs.delivery.workers import NewWorker, register
from jangada.jobs.errors import InvalidConcurrencyKey, JobNotStorable, JobTooLarge
from jangada.jobs.limits import Concurrency
from jangada.jobs.schemas import JobArgs
from jangada.schedules import service
from jangada.schedules.errors import (
    InvalidCron,
    KindNotSchedulable,
    ScheduleExists,
    ScheduleNotFound,
    TooManySchedules,
    UnknownTimezone,
)
from jangada.schedules.models import Misfire, Schedule
from jangada.schedules.schemas import ScheduleCreate, ScheduleFilter, SchedulePatch
from jangada.tenants.models import Tenant
from jangada.testing import make_person

pytestmark = pytest.mark.anyio

PAGE = PageRequest(CursorSigner(b"key"))


class Sail(JobArgs):
    kind: ClassVar[str] = "test.sail"
    concurrency: ClassVar = Concurrency(per_key=1, key=lambda args: args.port)
    port: str


@pytest.fixture
async def known_kinds(database: Database) -> None:
    facts = [
        KindFacts("test.open", "boats", 7, is_schedulable=True),
        KindFacts("test.closed", "default", 20),
    ]
    worker = NewWorker(new_id(), "pod", "host", 1, "0", ["default"], 4, facts)
    async with database.direct() as connection:
        await register(connection, worker)


def new(**values: Any) -> ScheduleCreate:  # noqa: ANN401 - as each test wants it
    given: dict[str, Any] = {"name": "tide", "cron": "@daily", "kind": "test.open", **values}
    return ScheduleCreate(**given)


async def create(session: AsyncSession, tenant: UUID, **values: Any) -> Schedule:  # noqa: ANN401 - as above
    return await service.create_schedule(session, tenant, new(**values))


@pytest.fixture
async def tenant_id(tenant: Tenant, known_kinds: None) -> UUID:
    return tenant.id


async def test_a_schedule_takes_queue_and_attempts_from_its_kind(
    session: AsyncSession, tenant_id: UUID
) -> None:
    made = await create(session, tenant_id, args={"port": "Natal"})
    assert (made.queue, made.max_attempts, made.misfire) == ("boats", 7, Misfire.ONCE)
    assert made.next_at > datetime.now(UTC)
    assert await service.get_schedule(session, tenant_id, made.id) is made


def nested(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels - 1):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"kind": "test.closed"}, KindNotSchedulable),
        ({"kind": "test.unknown"}, KindNotSchedulable),
        ({"cron": "61 * * * *"}, InvalidCron),
        ({"cron": "0 0 31 2,4 *"}, InvalidCron),
        ({"timezone": "Europe/Atlantis"}, UnknownTimezone),
        ({"args": {"x": "y" * 70_000}}, JobTooLarge),
        ({"args": {"x": "a\0b"}}, JobNotStorable),
        ({"args": {"x": float("nan")}}, JobNotStorable),
        ({"args": {"x": ["\ud800"]}}, JobNotStorable),
        ({"args": {"\ud800": 1}}, JobNotStorable),
        ({"args": {"x": nested(64)}}, JobNotStorable),
        ({"concurrency_key": "x" * 201}, InvalidConcurrencyKey),
        ({"concurrency_key": "a\0b"}, InvalidConcurrencyKey),
        ({"concurrency_key": "\ud800"}, InvalidConcurrencyKey),
    ],
)
async def test_what_could_not_run_is_refused(
    session: AsyncSession, tenant_id: UUID, values: dict[str, Any], error: type[JangadaError]
) -> None:
    with pytest.raises(error) as refused:
        await create(session, tenant_id, **values)
    assert [fault.pointer for fault in refused.value.errors] == [f"/{next(iter(values))}"]


def test_a_schedule_has_a_name() -> None:
    with pytest.raises(ValidationError):
        new(name="  ")


async def test_an_operator_may_schedule_any_known_kind(
    session: AsyncSession, tenant_id: UUID
) -> None:
    wanted = new(kind="test.closed")
    made = await service.create_schedule(session, tenant_id, wanted, is_trusted=True)
    assert made.kind == "test.closed"


async def test_a_name_is_taken_once_in_a_tenant(
    session: AsyncSession, tenant_id: UUID, database: Database
) -> None:
    await create(session, tenant_id)
    other = await create(session, tenant_id, name="another")
    with pytest.raises(ScheduleExists):
        await create(session, tenant_id)
    with pytest.raises(ScheduleExists):
        await service.update_schedule(session, tenant_id, other.id, SchedulePatch(name="tide"))
    bia = await make_person(database, "Bia")
    async with database.transaction(bia.tenant_id) as theirs:
        assert (await create(theirs, bia.tenant_id)).name == "tide"


async def test_a_tenant_has_no_more_schedules_than_it_may(
    session: AsyncSession, tenant_id: UUID
) -> None:
    await service.create_schedule(session, tenant_id, new(), most=1)
    with pytest.raises(TooManySchedules):
        await service.create_schedule(session, tenant_id, new(name="second"), most=1)


async def test_nor_where_many_are_created_at_once(tenant_id: UUID, database: Database) -> None:
    async def create_one(number: int) -> None:
        async with database.transaction(tenant_id) as own:
            await service.create_schedule(own, tenant_id, new(name=str(number)), most=3)

    ended = await asyncio.gather(*map(create_one, range(8)), return_exceptions=True)
    assert [type(each) for each in ended if each is not None] == [TooManySchedules] * 5


async def test_arguments_may_be_nested(session: AsyncSession, tenant_id: UUID) -> None:
    made = await create(session, tenant_id, args={"x": nested(63)})
    assert made.args == {"x": nested(63)}


async def test_another_tenants_schedule_is_not_there(tenant_id: UUID, database: Database) -> None:
    async with database.transaction(tenant_id) as session:
        made = await create(session, tenant_id)
    bia = await make_person(database, "Bia")
    async with database.transaction(bia.tenant_id) as theirs:
        for verb in (service.pause, service.resume, service.run, service.delete_schedule):
            with pytest.raises(ScheduleNotFound):
                await verb(theirs, bia.tenant_id, made.id)
            with pytest.raises(ScheduleNotFound):
                await verb(theirs, tenant_id, made.id)
        with pytest.raises(ScheduleNotFound):
            await service.update_schedule(theirs, tenant_id, made.id, SchedulePatch(name="x"))
        page = await service.list_schedules(theirs, tenant_id, ScheduleFilter(), PAGE)
        assert page.data == []


async def test_a_new_time_counts_from_now_on(session: AsyncSession, tenant_id: UUID) -> None:
    made = await create(session, tenant_id, cron="@yearly")
    yearly = made.next_at
    renamed = await service.update_schedule(session, tenant_id, made.id, SchedulePatch(name="x"))
    assert (renamed.name, renamed.next_at) == ("x", yearly)
    changed = SchedulePatch(cron="@hourly")
    hourly = await service.update_schedule(session, tenant_id, made.id, changed)
    assert hourly.next_at - datetime.now(UTC) <= timedelta(hours=1)


async def test_a_refused_change_changes_nothing(session: AsyncSession, tenant_id: UUID) -> None:
    made = await create(session, tenant_id)
    with pytest.raises(InvalidCron):
        await service.update_schedule(session, tenant_id, made.id, SchedulePatch(cron="nonsense"))
    await session.refresh(made)
    assert made.cron == "@daily"


async def test_what_falls_into_a_pause_was_not_missed(
    session: AsyncSession, tenant_id: UUID
) -> None:
    made = await create(session, tenant_id)
    paused = await service.pause(session, tenant_id, made.id)
    since = paused.paused_at
    assert (await service.pause(session, tenant_id, made.id)).paused_at == since
    past = update(Schedule).values(next_at=datetime(2020, 1, 1, tzinfo=UTC))
    await session.execute(past)
    resumed = await service.resume(session, tenant_id, made.id)
    assert not resumed.is_paused
    assert resumed.next_at > datetime.now(UTC)
    assert (await service.resume(session, tenant_id, made.id)).next_at == resumed.next_at


async def test_it_can_be_run_now_without_another_next_fire(
    session: AsyncSession, tenant_id: UUID
) -> None:
    made = await create(session, tenant_id, is_paused=True, args={"port": "Natal"})
    before = made.next_at
    job = await service.run(session, tenant_id, made.id)
    assert (job.kind, job.queue, job.args) == ("test.open", "boats", {"port": "Natal"})
    assert (made.next_at, made.last_job_id, made.is_paused) == (before, job.id, True)


async def test_a_list_is_filtered_and_newest_first(session: AsyncSession, tenant_id: UUID) -> None:
    made = [
        await create(session, tenant_id, name=str(number), is_paused=number == 1)
        for number in range(3)
    ]
    everything = await service.list_schedules(session, tenant_id, ScheduleFilter(), PAGE)
    assert everything.data == made[::-1]
    for is_paused, expected in ((True, [made[1]]), (False, [made[2], made[0]])):
        wanted = ScheduleFilter(is_paused=is_paused)
        page = await service.list_schedules(session, tenant_id, wanted, PAGE)
        assert page.data == expected
    nothing = await service.list_schedules(session, tenant_id, ScheduleFilter(kind="x"), PAGE)
    assert nothing.data == []


async def test_a_deleted_schedule_is_gone(session: AsyncSession, tenant_id: UUID) -> None:
    made = await create(session, tenant_id)
    await service.delete_schedule(session, tenant_id, made.id)
    with pytest.raises(ScheduleNotFound):
        await service.get_schedule(session, tenant_id, made.id)
    with pytest.raises(ScheduleNotFound):
        await service.delete_schedule(session, tenant_id, uuid4())


async def test_a_declared_schedule_is_made_once_and_follows_its_declaration(
    session: AsyncSession, tenant_id: UUID
) -> None:
    async def declare(cron: str, port: str) -> Schedule:
        return await service.put_schedule(
            session, Sail(port=port), tenant_id=tenant_id, name="sail", cron=cron
        )

    made = await declare("@yearly", "Natal")
    yearly, first_id = made.next_at, made.id
    assert (made.kind, made.concurrency_key) == ("test.sail", "Natal")
    await service.pause(session, tenant_id, made.id)
    again = await declare("@yearly", "Recife")
    assert (again.id, again.next_at, again.args) == (first_id, yearly, {"port": "Recife"})
    assert again.is_paused
    assert (await declare("30 * * * *", "Recife")).next_at != yearly


async def test_a_tenant_that_is_closed_fires_nothing_more(
    session: AsyncSession, tenant_id: UUID
) -> None:
    made = [await create(session, tenant_id, name=str(number)) for number in range(2)]
    await service.pause_all(session, tenant_id)
    for schedule in made:
        await session.refresh(schedule)
    assert [schedule.is_paused for schedule in made] == [True, True]
