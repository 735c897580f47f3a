"""The way of one attempt, step by step, in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from copy import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from jangada.jobs.context import JobContext
from jangada.jobs.delivery.connection import DirectConnection
from jangada.jobs.delivery.grant import GrantedJob
from jangada.jobs.delivery.policy import completed
from jangada.jobs.delivery.workers import deregister
from jangada.jobs.models import Job, JobState
from jangada_worker.child import endings
from jangada_worker.child.endings import EndingWriter
from jangada_worker.executor import Execution, Interruption, Workshop, execute
from jangada_worker.link import Observation

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("rehearsal")]

DEADLINE = timedelta(seconds=20)
LARGE = "x" * 300_000
READ_ONLY = """
    DO $$ BEGIN EXECUTE format(
        'ALTER DATABASE %I SET default_transaction_read_only = {}', current_database()
    ); END $$"""


class Bench:
    """Runs granted jobs in this process and writes how they end."""

    def __init__(self, raft: "Raft", shop: Workshop, seen: list[Observation]) -> None:
        self.raft = raft
        self.shop = shop
        self.seen = seen

    def begin(self, job: GrantedJob) -> Execution:
        context = JobContext(
            self.raft.runtime, job.tenant_id, job.job_id, job.attempt, job.max_attempts
        )
        interrupted = asyncio.get_running_loop().create_future()
        return Execution(self.shop, job, context, interrupted)

    async def run(self, job: GrantedJob) -> Job:
        await execute(self.begin(job))
        return await self.raft.row(job)

    async def interrupt(
        self, job: GrantedJob, why: Interruption, when: Callable[[], Awaitable[object]]
    ) -> Job:
        execution = self.begin(job)
        running = asyncio.create_task(execute(execution))
        await self.raft.until(when)
        execution.interrupt(why)
        await running
        return await self.raft.row(job)


@asynccontextmanager
async def writing(raft: "Raft", *, young: int = 1) -> AsyncIterator[EndingWriter]:
    connection = DirectConnection(raft.runtime.database, deadline=DEADLINE)
    writer = EndingWriter(connection, raft.runtime.queue, young=lambda: young)
    running = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        running.cancel()
        await asyncio.wait({running})
        await connection.close()


@pytest.fixture
async def bench(raft: "Raft") -> AsyncIterator[Bench]:
    seen: list[Observation] = []
    threads = ThreadPoolExecutor(2)
    async with writing(raft) as writer:
        yield Bench(raft, Workshop(raft.runtime, threads, writer.write, seen.append), seen)
    threads.shutdown()


@pytest.mark.parametrize(
    ("how", "state", "code"),
    [
        ("snooze", "scheduled", None),
        ("discard", "discarded", "job.discarded"),
        ("cancel", "cancelled", "job.cancelled"),
        ("not found", "discarded", "resource.not_found"),
        ("unavailable", "retryable", "service.unavailable"),
        ("timeout", "retryable", "job.timed_out"),
        ("late", "retryable", "job.timed_out"),
        ("error", "retryable", "job.failed"),
        ("swallowed completion", "retryable", "job.failed"),
    ],
)
async def test_each_outcome_is_written(  # noqa: PLR0917 - the table's columns
    raft: "Raft", bench: Bench, how: str, state: str, code: str | None
) -> None:
    kind = "test.overdue" if code == "job.timed_out" else "test.fail"
    row = await bench.run(await raft.start_here(kind, how=how))
    assert row.state == state
    assert [error["code"] for error in row.errors] == ([code] if code else [])
    assert [(each.kind, each.outcome) for each in bench.seen] == [(kind, state)]


@pytest.mark.parametrize("kind", ["test.effect", "test.threaded"])
@pytest.mark.parametrize(
    ("why", "state"),
    [
        (Interruption.HAND_BACK, "available"),
        (Interruption.CANCEL, "cancelled"),
        (Interruption.LEASE_LOST, "running"),
    ],
)
async def test_what_is_interrupted_before_it_begins_never_does(
    raft: "Raft", bench: Bench, *, kind: str, why: Interruption, state: str
) -> None:
    path = raft.folder / "end"
    path.touch()
    granted = await raft.start_here(kind, **({"path": str(path)} if "thread" in kind else {}))
    execution = bench.begin(granted)
    execution.interrupt(why)
    await execute(execution)
    assert execution.arguments is not None
    assert execution.work is None
    assert (await raft.row(granted)).state == state


async def test_a_result_is_stored(raft: "Raft", bench: Bench) -> None:
    row = await bench.run(await raft.start_here("test.answer", value={"rows": [1, 2]}))
    assert (row.state, row.result) == ("completed", {"value": {"rows": [1, 2]}})


@pytest.mark.parametrize(
    ("value", "code"), [(LARGE, "job.too_large"), ("a\0b", "job.not_storable")]
)
async def test_a_result_that_cannot_be_stored_discards(
    raft: "Raft", bench: Bench, value: str, code: str
) -> None:
    """The arguments couldn't carry it, so it is made where it is answered."""
    granted = await raft.start_here("test.answer")
    row = await bench.run(replace(granted, args={"value": value}))
    assert (row.state, row.errors[0]["code"]) == ("discarded", code)


async def test_effect_and_completion_are_one(raft: "Raft", bench: Bench) -> None:
    granted = await raft.start_here("test.effect")
    row = await bench.run(granted)
    assert (row.state, row.result) == ("completed", {"attempt": 1})
    assert await raft.effects(row) == [1]
    assert bench.seen[0].outcome == "completed"


async def test_a_zombie_writes_nothing(raft: "Raft", bench: Bench) -> None:
    """Its lease was lost while it waited at the gate: neither effect nor ending counts."""
    granted = await raft.start_here("test.effect", gate="go")
    running = asyncio.create_task(execute(bench.begin(granted)))
    row = await raft.row(granted)
    await raft.until_started(row)
    async with raft.runtime.database.direct() as connection:
        assert row.worker_id is not None
        await deregister(connection, [row.worker_id])
    await raft.open_gate("go")
    await running
    assert (await raft.row(granted)).state == "available"
    assert await raft.effects(row) == []
    assert bench.seen[0].outcome == "lease_lost"


async def test_a_zombies_error_changes_nothing(raft: "Raft", bench: Bench) -> None:
    granted = await raft.start_here("test.fail", how="error")
    row = await bench.run(replace(granted, attempt=7))
    assert (row.state, row.errors) == ("running", [])
    assert bench.seen[0].outcome == "lease_lost"


@pytest.mark.parametrize(
    ("why", "state", "outcome"),
    [
        (Interruption.CANCEL, "cancelled", "cancelled"),
        (Interruption.HAND_BACK, "available", "available"),
        (Interruption.LEASE_LOST, "running", "lease_lost"),
    ],
)
async def test_an_interrupted_attempt_ends_as_its_interrupter_wants(  # noqa: PLR0917 - the table's columns
    raft: "Raft", bench: Bench, why: Interruption, state: str, outcome: str
) -> None:
    granted = await raft.start_here("test.effect", gate="never")
    before = await raft.row(granted)
    row = await bench.interrupt(granted, why, lambda: raft.signs(before))
    assert row.state == state
    assert bench.seen[0].outcome == outcome
    assert await raft.signs(row, "cancelled")
    assert await raft.effects(row) == []


async def test_an_attempt_that_is_interrupted_before_it_begins_does_not(
    raft: "Raft", bench: Bench
) -> None:
    granted = await raft.start_here("test.effect")
    execution = bench.begin(granted)
    execution.interrupt(Interruption.HAND_BACK)
    await execute(execution)
    row = await raft.row(granted)
    assert (row.state, row.max_attempts) == ("available", 21)
    assert await raft.signs(row) == []


async def test_a_thread_runs_a_sync_handler(raft: "Raft", bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "gate"
    path.touch()
    row = await bench.run(await raft.start_here("test.threaded", path=str(path)))
    assert (row.state, row.result) == ("completed", {"attempt": 1})


async def test_a_cancelled_thread_keeps_its_slot_until_it_ends(
    raft: "Raft", bench: Bench, tmp_path: Path
) -> None:
    """Its job is cancelled at once all the same."""
    path = tmp_path / "gate"
    granted = await raft.start_here("test.threaded", path=str(path))
    execution = bench.begin(granted)
    running = asyncio.create_task(execute(execution))

    async def has_begun() -> bool:
        return path.with_suffix(".started").exists()

    await raft.until(has_begun)
    execution.interrupt(Interruption.CANCEL)
    job = await raft.row(granted)
    await raft.until_state(job, "cancelled")
    assert not running.done()
    path.touch()
    await running


async def test_a_handler_that_ignores_its_cancellation_loses_its_job(
    raft: "Raft", bench: Bench
) -> None:
    granted = await raft.start_here("test.stubborn", gate="go")
    execution = bench.begin(granted)
    running = asyncio.create_task(execute(execution))
    job = await raft.row(granted)
    await raft.until_started(job)
    execution.interrupt(Interruption.CANCEL)
    await raft.until_state(job, "cancelled")
    assert not running.done()
    await raft.open_gate("go")
    await running
    assert await raft.effects(job) == []


async def test_an_exit_ends_only_its_job(raft: "Raft", bench: Bench) -> None:
    row = await bench.run(await raft.start_here("test.leave"))
    assert (row.state, row.errors[0]["code"]) == ("retryable", "job.failed")
    assert "HandlerExited" in row.errors[0]["detail"]


async def test_arguments_of_another_release_are_named_and_tried_again(
    raft: "Raft", bench: Bench
) -> None:
    granted = await raft.start_here("test.fail", how="error")
    row = await bench.run(replace(granted, args={"how": 5}))
    (error,) = row.errors
    assert (row.state, error["code"]) == ("retryable", "job.arguments_not_understood")
    assert [fault["pointer"] for fault in error["errors"]] == ["/how"]
    assert "/how: Input should be a valid string" in error["detail"]


async def test_an_unknown_kind_waits(raft: "Raft", bench: Bench) -> None:
    row = await bench.run(await raft.start_here("test.of-tomorrow"))
    assert (row.state, row.attempt, row.max_attempts) == ("scheduled", 1, 21)


async def test_what_postgresql_refuses_does_not_hold_up_its_neighbours(raft: "Raft") -> None:
    bad, good = await raft.start_here("test.answer"), await raft.start_here("test.answer")
    async with writing(raft) as writer:
        counts = await asyncio.gather(
            writer.write(completed(bad, '"\\u0000"')), writer.write(completed(good, '{"a": 1}'))
        )
    assert list(counts) == [True, True]
    first, second = await raft.row(bad), await raft.row(good)
    assert (first.state, first.errors[0]["code"]) == (JobState.DISCARDED, "job.not_storable")
    assert (second.state, second.result) == (JobState.COMPLETED, {"a": 1})


async def test_endings_wait_for_postgresql(raft: "Raft") -> None:
    granted = await raft.start_here("test.answer")
    async with writing(raft) as writer:
        await raft.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        assert await writer.write(completed(granted, None))
    assert (await raft.row(granted)).state == "completed"


async def test_endings_wait_while_postgresql_takes_no_writes(raft: "Raft") -> None:
    """As after a failover, while a standby still answers under the old name."""
    granted = await raft.start_here("test.answer")

    async def has_waited() -> bool:
        return any(line["event"] == "job results wait for PostgreSQL" for line in lines)

    async with raft.runtime.database.direct() as connection, writing(raft) as writer:
        await connection.execute(READ_ONLY.format("on"))
        with structlog.testing.capture_logs() as lines:
            written = asyncio.ensure_future(writer.write(completed(granted, None)))
            await raft.until(has_waited)
        await connection.execute(READ_ONLY.format("off"))
        assert await written
    assert (await raft.row(granted)).state == "completed"


async def test_endings_of_jobs_that_began_together_are_written_together(
    raft: "Raft", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the four: the first one waits for the second, for as long as it takes."""
    monkeypatch.setattr(endings, "LINGER", 60.0)
    jobs = [await raft.start_here("test.answer") for _ in range(2)]
    async with writing(raft, young=4) as writer, asyncio.timeout(30):
        assert all(await asyncio.gather(*(writer.write(completed(job, None)) for job in jobs)))
    transactions = await raft.execute("SELECT DISTINCT xmin::text FROM jobs")
    assert len(transactions) == 1
