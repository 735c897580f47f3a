"""`jangada jobs`: what an operator sees and does, over all tenants."""

import json
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from jangada.db import Database
from jangada.jobs import service
from jangada.jobs.models import Job, JobState
from jangada.jobs.schemas import JobArgs
from jangada.testing import Person, make_person

if TYPE_CHECKING:
    from packages.jangada.tests.jobs.conftest import Jobs

pytestmark = pytest.mark.anyio


class Show(JobArgs):
    """Arguments that would like to be markup."""

    kind = "test.show"
    text: str = ""


async def enqueued(database: Database, person: Person, args: JobArgs, **changes: Any) -> UUID:  # noqa: ANN401 - columns
    async with database.transaction(person.tenant_id) as session:
        job = await service.enqueue(session, args, tenant_id=person.tenant_id)
        if changes:
            await session.execute(update(Job).where(Job.id == job.id).values(**changes))
    return job.id


async def read(database: Database, person: Person, id_: UUID) -> Job:
    async with database.read(person.tenant_id) as session:
        return await service.get_job(session, person.tenant_id, id_)


@pytest.mark.parametrize("terminal", [{}, {"TTY_COMPATIBLE": "1", "COLUMNS": "60"}])
async def test_the_list_is_a_line_for_each_job_of_every_tenant(
    *,
    jobs: "Jobs",
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    terminal: dict[str, str],
) -> None:
    """Whole on a narrow terminal, which breaks lines itself, and for what it is piped into."""
    for name, value in terminal.items():
        monkeypatch.setenv(name, value)
    one, other = await make_person(database, "One"), await make_person(database, "Other")
    ids = [await enqueued(database, person, Show()) for person in (one, other)]
    ended = await jobs("list")
    assert ended.code == 0
    heading, *lines = re.sub(r"\x1b\[[\d;]*m", "", ended.out).splitlines()
    columns = "id kind queue state attempt scheduled_at finished_at"
    assert heading.split() == columns.split()
    assert [line.split()[:4] for line in lines] == [
        [str(id_), "test.show", "default", "available"] for id_ in ids[::-1]
    ]
    assert all(len(line) < 200 for line in lines)


async def test_the_list_can_be_narrowed_and_read_by_scripts(
    jobs: "Jobs", database: Database
) -> None:
    one, other = await make_person(database, "One"), await make_person(database, "Other")
    running = await enqueued(database, one, Show(text="a"), state=JobState.RUNNING)
    waiting = await enqueued(database, other, Show())
    for narrowed, expected in (
        (["--state", "running"], [running]),
        (["--tenant", str(other.tenant_id)], [waiting]),
        (["--kind", "test.show", "--limit", "1"], [waiting]),
        (["--queue", "other"], []),
    ):
        ended = await jobs("list", "--json", *narrowed)
        found = [json.loads(line) for line in ended.out.splitlines()]
        assert [UUID(row["id"]) for row in found] == expected
        assert all("args" not in row for row in found)


async def test_a_job_is_shown_with_all_that_it_holds(
    jobs: "Jobs", database: Database, person: Person
) -> None:
    text = "[/bold] [red]not markup[/red] \x1b[31m"
    errors = [{"code": "job.failed", "detail": "[/] down"}]
    id_ = await enqueued(database, person, Show(text=text), errors=errors, result={"rows": 1})
    ended = await jobs("show", str(id_))
    assert ended.code == 0
    lines = dict(line.split(" ", 1) for line in ended.out.splitlines())
    assert json.loads(lines["args"]) == {"text": text}
    assert json.loads(lines["error"]) == errors[0]
    assert json.loads(lines["result"]) == {"rows": 1}
    assert lines["state"] == "available"
    assert "\x1b" not in ended.out
    as_json = json.loads((await jobs("show", "--json", str(id_))).out)
    assert (as_json["args"], as_json["errors"]) == ({"text": text}, errors)


async def test_cancel_says_whether_the_job_still_runs(
    jobs: "Jobs", database: Database, person: Person
) -> None:
    waiting = await enqueued(database, person, Show())
    running = await enqueued(database, person, Show(), state=JobState.RUNNING)
    assert (await jobs("cancel", str(waiting))).out == f"Job {waiting} is cancelled.\n"
    assert (await jobs("cancel", str(running))).out == f"Job {running} is asked to stop.\n"
    assert (await read(database, person, waiting)).state is JobState.CANCELLED
    asked = await read(database, person, running)
    assert (asked.state, asked.cancel_requested_at is None) == (JobState.RUNNING, False)


async def test_retry_makes_a_job_available(
    jobs: "Jobs", database: Database, person: Person
) -> None:
    id_ = await enqueued(database, person, Show(), state=JobState.DISCARDED, attempt=20)
    assert (await jobs("retry", str(id_))).out == f"Job {id_} is available.\n"
    job = await read(database, person, id_)
    assert (job.state, job.max_attempts) == (JobState.AVAILABLE, 21)


async def test_what_cannot_be_done_is_a_line_and_an_exit_code(
    jobs: "Jobs", database: Database, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = uuid4()
    for verb in ("show", "cancel", "retry"):
        ended = await jobs(verb, str(absent))
        assert (ended.code, ended.err) == (1, f"jangada: There is no job {absent}.\n")
    done = await enqueued(database, person, Show(), state=JobState.COMPLETED)
    ended = await jobs("cancel", str(done))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"jangada: Job {done} is completed and cannot be cancelled.\n"
    monkeypatch.setenv("JANGADA_DATABASE__URL", "postgresql://u:canary@/d?host=/nowhere")
    ended = await jobs("list")
    assert ended.code == 69
    assert ended.err.startswith("jangada: The database cannot be reached. (")
    assert "canary" not in ended.err
