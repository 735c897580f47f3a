"""From the commit to the end of a job, through the real programs."""

from typing import TYPE_CHECKING

import pytest

from jangada.jobs.models import JobState

if TYPE_CHECKING:
    from conftest import Raft

pytestmark = pytest.mark.anyio


async def test_a_committed_job_runs(raft: "Raft") -> None:
    await raft.dispatcher()
    await raft.worker()
    job = await raft.enqueue("ping", message="ahoy")
    row = await raft.until_state(job)
    assert (row.state, row.attempt) == (JobState.COMPLETED, 1)
    assert row.result["message"] == "ahoy"
