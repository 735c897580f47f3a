"""The completion as the last statement of a handler's transaction, and the fence around it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from jangada.db import Database
from jangada.jobs import registry, service
from jangada.jobs.context import JobContext
from jangada.jobs.errors import JobNotStorable, JobTooLarge, LeaseLost, UnknownJobKind
from jangada.jobs.models import Job, JobState, is_final, is_waiting
from jangada.jobs.outcomes import Cancel, Discard, Outcome, Snooze
from jangada.jobs.payloads import MAX_RESULT_BYTES, Result, encode_result
from jangada.jobs.registry import DEFAULT_TIMEOUT, handles
from jangada.jobs.schemas import JobArgs
from jangada.runtime import Runtime
from jangada.scopes import tenant_scope
from jangada.tenants.models import Tenant
from jangada.testing import Person

pytestmark = pytest.mark.anyio


class Fold(JobArgs):
    """A job to complete."""

    kind = "test.fold"


class Counted(BaseModel):
    """A result as handlers have them."""

    rows: int
    at: datetime | None = None


@pytest.fixture
async def context(runtime: Runtime, person: Person) -> JobContext:
    """The first attempt of a running job."""
    async with runtime.database.transaction(person.tenant_id) as session:
        job = await service.enqueue(session, Fold(), tenant_id=person.tenant_id)
        running = {"state": JobState.RUNNING, "attempt": 1}
        await session.execute(update(Job).where(Job.id == job.id).values(**running))
    return JobContext(runtime, person.tenant_id, job.id, attempt=1, max_attempts=20)


async def stored(context: JobContext) -> Job:
    async with context.runtime.database.read(context.tenant_id) as session:
        return await service.get_job(session, context.tenant_id, context.job_id)


async def tenant_name(context: JobContext) -> str:
    async with context.transaction() as session:
        return (await session.scalars(select(Tenant.name))).one()


async def overtake(context: JobContext, **changes: Any) -> None:  # noqa: ANN401 - columns
    async with context.runtime.database.transaction(context.tenant_id) as session:
        await session.execute(update(Job).where(Job.id == context.job_id).values(**changes))


async def rename_and_complete(context: JobContext, result: Result = None) -> None:
    async with context.transaction() as session:
        await session.execute(text("UPDATE tenants SET name = 'Renamed'"))
        await context.complete(session, result)


async def rename_and_complete_on_pooled(context: JobContext, result: Result = None) -> None:
    async with context.connection() as connection:
        await connection.execute("UPDATE tenants SET name = 'Renamed'")
        await context.complete_on(connection, result)


async def rename_and_complete_on(context: JobContext, result: Result = None) -> None:
    async with (
        context.runtime.database.direct() as connection,
        tenant_scope(connection, context.tenant_id),
    ):
        await connection.execute("UPDATE tenants SET name = 'Renamed'")
        await context.complete_on(connection, result)


type Finish = Callable[..., Awaitable[None]]

WAYS = pytest.mark.parametrize(
    "finish", [rename_and_complete, rename_and_complete_on_pooled, rename_and_complete_on]
)


@WAYS
async def test_effects_and_completion_commit_together(context: JobContext, finish: Finish) -> None:
    await context.progress(3, 4)
    await finish(context, Counted(rows=3, at=datetime(2026, 3, 1, tzinfo=UTC)))
    job = await stored(context)
    assert job.state is JobState.COMPLETED
    assert job.result == {"rows": 3, "at": "2026-03-01T00:00:00Z"}
    assert (job.progress_done, job.progress_total) == (3, 4)
    assert (job.revision, job.worker_id) == (2, None)
    assert job.finished_at is not None
    assert context.completed
    assert await tenant_name(context) == "Renamed"


@WAYS
@pytest.mark.parametrize(
    "changes", [{"attempt": 2}, {"state": JobState.AVAILABLE}, {"state": JobState.COMPLETED}]
)
async def test_an_attempt_that_lost_its_lease_changes_nothing(
    context: JobContext,
    finish: Finish,
    changes: dict[str, Any],
) -> None:
    await overtake(context, **changes)
    with pytest.raises(LeaseLost):
        await finish(context)
    assert await tenant_name(context) == "Ana"
    assert (await stored(context)).revision == 1
    assert not context.completed


async def test_a_job_completes_once(context: JobContext) -> None:
    with pytest.raises(LeaseLost):
        async with context.transaction() as session:
            await context.complete(session)
            await context.complete(session)
    assert (await stored(context)).state is JobState.RUNNING


async def test_a_completion_whose_commit_fails_is_none(
    context: JobContext, database: Database
) -> None:
    async with database.system_transaction("test") as session:
        await session.execute(
            text("CREATE TABLE singles (n integer UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        )
    with pytest.raises(DBAPIError):
        async with context.transaction() as session:
            await session.execute(text("INSERT INTO singles VALUES (1), (1)"))
            await context.complete(session)
    assert not context.completed
    assert (await stored(context)).state is JobState.RUNNING
    await rename_and_complete(context)
    assert (await stored(context)).result is None


async def test_progress_is_reported_as_it_is_made(context: JobContext) -> None:
    heard: list[tuple[int, int | None]] = []

    async def report(done: int, total: int | None) -> None:
        heard.append((done, total))

    context.report = report
    await context.progress(1)
    await context.progress(10**12, 10**12)
    await rename_and_complete(context)
    assert heard == [(1, None), (10**12, 10**12)]
    assert (await stored(context)).progress_done == 10**12


async def test_a_context_works_in_its_own_tenant(context: JobContext, person: Person) -> None:
    async with context.transaction() as session:
        assert (await session.scalars(select(Tenant.id))).all() == [person.tenant_id]


async def test_the_idempotency_key_is_the_same_for_every_attempt(runtime: Runtime) -> None:
    tenant, job = UUID(int=1), UUID(int=2)
    keys = {
        JobContext(runtime, tenant, job, attempt=attempt, max_attempts=2).idempotency_key
        for attempt in (1, 2)
    }
    assert keys == {f"{tenant}:{job}"}


def test_a_result_has_256_kib() -> None:
    frame = len('{"x":""}')
    fits = encode_result({"x": "y" * (MAX_RESULT_BYTES - frame)})
    assert fits is not None
    assert len(fits) == MAX_RESULT_BYTES
    with pytest.raises(JobTooLarge) as raised:
        encode_result({"x": "y" * (MAX_RESULT_BYTES - frame + 1)})
    assert [fault.pointer for fault in raised.value.errors] == ["/result"]


@pytest.mark.parametrize(
    ("result", "encoded"),
    [
        (None, None),
        ({}, "{}"),
        (Counted(rows=1), '{"rows":1,"at":null}'),
        ({"text": "\\u0000", "id": UUID(int=1)}, None),
    ],
)
def test_a_result_is_json(result: Result, encoded: str | None) -> None:
    found = encode_result(result)
    assert found == encoded or (encoded is None and found is not None and "0001" in found)


@pytest.mark.parametrize("text_", ["\0", "\\\0", "a\\\\\0"])
def test_a_nul_in_a_result_is_refused_by_name(text_: str) -> None:
    with pytest.raises(JobNotStorable) as raised:
        encode_result({"text": text_})
    assert [fault.pointer for fault in raised.value.errors] == ["/result"]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this test registers is forgotten after it."""
    for kind in ("test.fold", "test.press"):
        monkeypatch.setitem(registry._registered, kind, None)
        monkeypatch.delitem(registry._registered, kind)


class Press(JobArgs):
    """Another kind."""

    kind = "test.press"


class PressAgain(JobArgs):
    """The same kind by mistake."""

    kind = "test.press"


async def fold(args: Fold, context: JobContext) -> None:
    del args, context


def press(args: JobArgs, context: JobContext) -> None:
    del args, context


def test_a_kind_has_one_handler(registered: None) -> None:
    assert registry.find("test.fold") is None
    with pytest.raises(UnknownJobKind, match=r"test\.fold"):
        registry.get("test.fold")
    assert handles(Fold)(fold) is fold
    assert handles(Press)(press) is press
    found = registry.get("test.fold")
    assert (found.kind, found.is_async, found.timeout) == ("test.fold", True, DEFAULT_TIMEOUT)
    assert not registry.get("test.press").is_async
    assert registry.kinds() >= {"test.fold", "test.press"}


def test_a_kind_with_two_handlers_is_an_error_at_import(registered: None) -> None:
    handles(Press)(press)
    handles(Press)(press)
    with pytest.raises(ValueError, match=r"test\.press is handled by press already"):
        handles(PressAgain)(fold)  # type: ignore[arg-type]
    assert registry.get("test.press").args is Press


def test_outcomes_say_why() -> None:
    outcomes: list[Outcome] = [Discard("no use"), Cancel("not wanted")]
    assert [str(outcome) for outcome in outcomes] == ["no use", "not wanted"]
    assert "0:00:05" in str(Snooze(delay=timedelta(seconds=5)))


async def test_the_predicates_divide_the_states(context: JobContext) -> None:
    async with context.transaction() as session:
        for state in JobState:
            await session.execute(update(Job).values(state=state))
            found = (await session.execute(select(is_final(), is_waiting()))).one()
            assert sum(found) == (0 if state is JobState.RUNNING else 1)
