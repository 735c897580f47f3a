"""`jangada jobs redrive`: by filter, over all tenants, and stopped in the middle."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from io import RawIOBase
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from anyio import to_thread
from sqlalchemy import text

from jangada.db import Database
from jangada.testing import Person, eventually, eventually_not, make_person

if TYPE_CHECKING:
    from packages.jangada.tests.jobs.conftest import Jobs

pytestmark = pytest.mark.anyio

DISCARDED = text("""
    INSERT INTO jobs (tenant_id, id, kind, queue, state, args, max_attempts, attempt, errors, tags,
        finished_at)
    SELECT :tenant, ('00000000-0000-7000-8000-' || lpad(number::text, 12, '0'))::uuid, :kind,
        :queue, 'discarded', '{}', 20, 20,
        jsonb_build_array(jsonb_build_object('code', CAST(:code AS text))),
        ARRAY[CAST(:tag AS text)], now() - make_interval(hours => :hours)
    FROM generate_series(1, :jobs) AS number
""")


async def discarded(database: Database, person: Person, **how: Any) -> None:  # noqa: ANN401 - columns
    values: dict[str, Any] = {
        "kind": "test.sent",
        "queue": "default",
        "code": "job.failed",
        "tag": "a",
        "hours": 1,
        "jobs": 1,
    }
    async with database.transaction(person.tenant_id) as session:
        await session.execute(DISCARDED, {"tenant": person.tenant_id} | values | how)


async def states(database: Database) -> dict[str, int]:
    async with database.system_transaction("test") as session:
        rows = await session.execute(text("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {row[0]: row[1] for row in rows}


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (["--kind", "test.other"], {"kind": "test.other"}),
        (["--queue", "mail"], {"queue": "mail"}),
        (["--tag", "vip"], {"tag": "vip"}),
        (["--error-code", "mail.refused"], {"code": "mail.refused"}),
        (["--since", "30m"], {"hours": 0}),
        (["--until", "90m", "--queue", "default"], {"hours": 3}),
    ],
)
async def test_the_options_narrow_what_is_redriven_and_listed(
    jobs: "Jobs", database: Database, person: Person, *, options: list[str], how: dict[str, Any]
) -> None:
    other = await make_person(database, "Other")
    await discarded(database, person)
    await discarded(database, other, **how)
    listed = await jobs("list", "--state", "discarded", "--json", *options)
    (row,) = [json.loads(line) for line in listed.out.splitlines()]
    assert row["tenant_id"] == str(other.tenant_id)
    ended = await jobs("redrive", *options)
    assert (ended.code, ended.out) == (0, "Redriven: 1.\n")
    assert await states(database) == {"available": 1, "discarded": 1}


async def test_it_counts_before_it_does_anything(
    jobs: "Jobs", database: Database, person: Person
) -> None:
    other = await make_person(database, "Other")
    await discarded(database, person, jobs=3)
    await discarded(database, other, jobs=2)
    only = ["--tenant", str(other.tenant_id)]
    assert (await jobs("redrive", "--dry-run", *only)).out == "Would be redriven: 2.\n"
    tried = await jobs("redrive", "--all", "--dry-run", "--json")
    assert json.loads(tried.out) == {"chosen": 5, "redriven": 0, "dry_run": True}
    assert await states(database) == {"discarded": 5}
    done = await jobs("redrive", "--all", "--json")
    assert json.loads(done.out) == {"chosen": 5, "redriven": 5, "dry_run": False}
    assert done.err == ""
    assert await states(database) == {"available": 5}


async def test_a_person_at_a_terminal_sees_how_far_it_is(
    environment: None, database: Database, person: Person
) -> None:
    await discarded(database, person, jobs=1200)
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jangada", "jobs", "redrive", "--all"),
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        stdout=asyncio.subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        shown = await to_thread.run_sync(read_terminal, terminal)
    out, _ = await process.communicate()
    assert out == b"Redriven: 1200.\n"
    assert b"Redriving" in shown
    assert b"100%" in shown


def read_terminal(terminal: RawIOBase) -> bytes:
    """Until the last program that wrote to it has ended, which is an error on Linux."""
    shown = b""
    with suppress(OSError):
        while read := terminal.read(4096):
            shown += read
    return shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "say which jobs, or --all"), (["--since", "yesterday"], "write 30m, 2h, 7d or")],
)
async def test_what_says_nothing_redrives_nothing(
    jobs: "Jobs", database: Database, person: Person, *, arguments: list[str], said: str
) -> None:
    await discarded(database, person)
    ended = await jobs("redrive", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in " ".join(ended.err.replace("│", " ").split())
    assert await states(database) == {"discarded": 1}


BARRIER = """
    CREATE FUNCTION wait_at_barrier() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(1);
        RETURN NEW;
    END $$;
    CREATE TRIGGER barrier BEFORE UPDATE ON jobs FOR EACH ROW
        WHEN (OLD.id = '00000000-0000-7000-8000-000000001500') EXECUTE FUNCTION wait_at_barrier();
"""


async def waits_at_the_barrier(database: Database) -> bool:
    async with database.system_transaction("test") as session:
        found = await session.execute(
            text(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        )
        return bool(found.scalar_one())


async def test_a_killed_redrive_has_done_whole_transactions_and_the_next_does_the_rest(
    jobs: "Jobs", database: Database, person: Person
) -> None:
    """It is killed inside its second transaction, which a trigger holds up."""
    await discarded(database, person, jobs=2500)
    async with database.direct() as connection:
        await connection.execute(BARRIER)
        await connection.execute("SELECT pg_advisory_lock(1)")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jangada", "jobs", "redrive", "--all"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        await eventually(lambda: waits_at_the_barrier(database))
        process.send_signal(signal.SIGKILL)
        await process.wait()
        assert await states(database) == {"available": 1000, "discarded": 1500}
    await eventually_not(lambda: waits_at_the_barrier(database))
    rest = await jobs("redrive", "--all", "--json")
    assert json.loads(rest.out)["redriven"] == 1500
    assert await states(database) == {"available": 2500}
    async with database.read(person.tenant_id) as session:
        found = await session.execute(text("SELECT DISTINCT revision, max_attempts FROM jobs"))
        assert found.all() == [(2, 21)]


async def test_a_job_is_found_by_its_id_alone_whosever_it_is(
    jobs: "Jobs", database: Database, person: Person
) -> None:
    await make_person(database, "Other")
    await discarded(database, person)
    id_ = UUID("00000000-0000-7000-8000-000000000001")
    shown = json.loads((await jobs("show", "--json", str(id_))).out)
    assert (shown["tenant_id"], shown["tags"]) == (str(person.tenant_id), ["a"])
    assert shown["errors"] == [{"code": "job.failed"}]
