"""How attempts end, fenced by their number."""

from datetime import timedelta
from typing import TYPE_CHECKING

import orjson
import pytest

from jangada.db import utc_now
from jangada.jobs.delivery import policy
from jangada.jobs.delivery.finish import finish
from jangada.jobs.models import JobState
from jangada.jobs.outcomes import Cancel, Discard, Snooze

if TYPE_CHECKING:
    from packages.jangada.tests.jobs.delivery.conftest import Bench

pytestmark = pytest.mark.anyio


async def test_a_completed_job_keeps_its_result_and_progress(bench: "Bench") -> None:
    granted = await bench.start(await bench.enqueue())
    ending = policy.completed(granted, '{"rows": 3}', done=3, total=4)
    assert await finish(bench.connection, [ending]) == {granted.job_id}
    row = await bench.reload(granted)
    assert (row.state, row.result, row.errors) == (JobState.COMPLETED, {"rows": 3}, [])
    assert (row.progress_done, row.progress_total, row.worker_id) == (3, 4, None)
    assert row.finished_at is not None


async def test_an_attempt_ends_once(bench: "Bench") -> None:
    granted = await bench.start(await bench.enqueue())
    await finish(bench.connection, [policy.completed(granted, None)])
    assert await finish(bench.connection, [policy.failed(granted, OSError())]) == frozenset()
    assert (await bench.reload(granted)).state == JobState.COMPLETED


async def test_an_older_attempt_cannot_end_a_newer_one(bench: "Bench") -> None:
    job = await bench.enqueue()
    zombie = await bench.start(job)
    await finish(bench.connection, [policy.handed_back(zombie)])
    await bench.start(job)
    assert await finish(bench.connection, [policy.completed(zombie, None)]) == frozenset()
    assert (await bench.reload(job)).state == JobState.RUNNING


async def test_a_failure_is_tried_again_later(bench: "Bench") -> None:
    granted = await bench.start(await bench.enqueue())
    before = utc_now()
    ending = policy.failed(granted, OSError(5, "disk"), draw=lambda: 0.5)
    await finish(bench.connection, [ending])
    row = await bench.reload(granted)
    assert (row.state, row.attempt, row.max_attempts) == (JobState.RETRYABLE, 1, 20)
    assert row.scheduled_at >= before + timedelta(seconds=0.9)
    assert row.finished_at is None
    (error,) = row.errors
    assert (error["code"], error["attempt"]) == ("job.failed", 1)
    assert "disk" in error["detail"]
    assert "at" in error


async def test_the_last_attempt_discards(bench: "Bench") -> None:
    granted = await bench.start(await bench.enqueue(max_attempts=1))
    await finish(bench.connection, [policy.failed(granted, OSError())])
    row = await bench.reload(granted)
    assert row.state == JobState.DISCARDED
    assert row.finished_at is not None


async def test_a_snooze_costs_no_attempt(bench: "Bench") -> None:
    granted = await bench.start(await bench.enqueue(max_attempts=1))
    await finish(bench.connection, [policy.failed(granted, Snooze(timedelta(hours=1)))])
    row = await bench.reload(granted)
    assert (row.state, row.attempt, row.max_attempts) == (JobState.SCHEDULED, 1, 2)
    assert row.scheduled_at > utc_now() + timedelta(minutes=59)
    assert row.errors == []


async def test_outcomes_are_written_with_their_reasons(bench: "Bench") -> None:
    discarded = await bench.start(await bench.enqueue())
    cancelled = await bench.start(await bench.enqueue())
    endings = [
        policy.failed(discarded, Discard("no such file")),
        policy.failed(cancelled, Cancel("not wanted")),
    ]
    assert len(await finish(bench.connection, endings)) == 2
    first, second = await bench.reload(discarded), await bench.reload(cancelled)
    assert (first.state, first.errors[0]["detail"]) == (JobState.DISCARDED, "no such file")
    assert (second.state, second.errors[0]["detail"]) == (JobState.CANCELLED, "not wanted")


async def test_a_handed_back_job_costs_no_attempt_and_keeps_its_place(bench: "Bench") -> None:
    job = await bench.enqueue()
    granted = await bench.start(job)
    await finish(bench.connection, [policy.handed_back(granted)])
    row = await bench.reload(job)
    assert (row.state, row.attempt, row.max_attempts) == (JobState.AVAILABLE, 1, 21)
    assert row.scheduled_at == job.scheduled_at


@pytest.mark.parametrize("error", [OSError(), Snooze(timedelta(hours=1)), None])
async def test_what_would_run_again_after_a_cancel_is_cancelled(
    bench: "Bench", error: Exception | None
) -> None:
    job = await bench.enqueue()
    granted = await bench.start(job)
    await bench.ask_to_cancel(job)
    ending = policy.handed_back(granted) if error is None else policy.failed(granted, error)
    await finish(bench.connection, [ending])
    row = await bench.reload(job)
    assert row.state == JobState.CANCELLED
    assert row.finished_at is not None


async def test_a_job_that_completes_in_spite_of_a_cancel_is_completed(bench: "Bench") -> None:
    job = await bench.enqueue()
    granted = await bench.start(job)
    await bench.ask_to_cancel(job)
    await finish(bench.connection, [policy.completed(granted, None)])
    assert (await bench.reload(job)).state == JobState.COMPLETED


async def test_the_last_twenty_errors_are_kept(bench: "Bench") -> None:
    job = await bench.enqueue()
    old = [{"code": "job.failed", "detail": str(number), "attempt": 0} for number in range(20)]
    await bench.change(job, errors=old)
    granted = await bench.start(job)
    assert granted.failures == 20
    await finish(bench.connection, [policy.failed(granted, Discard("newest"))])
    errors = (await bench.reload(job)).errors
    assert len(errors) == 20
    assert [errors[0]["detail"], errors[-1]["detail"]] == ["1", "newest"]


async def test_texts_that_jsonb_cannot_hold_are_cleaned(bench: "Bench") -> None:
    granted = await bench.start(await bench.enqueue())
    await finish(bench.connection, [policy.failed(granted, Discard("a\0b\ud800c"))])
    assert (await bench.reload(granted)).errors[0]["detail"] == "ab?c"


def test_an_encoded_error_is_json() -> None:
    assert policy.encode_error(None) is None
    assert orjson.loads(policy.encode_error({"code": "x"}) or "") == {"code": "x"}
