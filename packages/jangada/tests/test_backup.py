"""The commands of docs/guides/backup.md, as they stand there, on a database with two tenants."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from jangada.db import Database
from jangada.jobs import service
from jangada.jobs.schemas import JobArgs
from jangada.local.binaries import postgres_program
from jangada.local.postgres import EmbeddedPostgres
from jangada.testing import make_person

pytestmark = pytest.mark.anyio

GUIDE: Final = Path(__file__).parents[3] / "docs/guides/backup.md"
SECONDS: Final = 60

TABLES: Final = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
GUARDS: Final = """
    SELECT relname, relrowsecurity, relforcerowsecurity,
        has_table_privilege(pg_class.oid, 'TRUNCATE'), policyname, qual, with_check
    FROM pg_class LEFT JOIN pg_policies ON tablename = relname
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1, 5
"""


class Ping(JobArgs):
    """A row of a tenant table."""

    kind = "test.ping"


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(
    postgres: EmbeddedPostgres, database_url: str, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """The environment that the guide speaks of; `HOME` is a folder of the test's own."""
    programs = f"{postgres_program('pg_dump').parent}:{Path(sys.executable).parent}"
    yield {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "ADMIN_URL": postgres.admin_url,
        "RESTORED_URL": postgres.database_url("restored"),
        "JANGADA_DATABASE__DIRECT_URL": database_url,
    }
    postgres.drop_database("restored")


def shell(script: str, place: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the commands of our own guide
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=place["HOME"],
        env=place,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def seen(url: str, query: str) -> list[tuple[object, ...]]:
    """What the query answers in system scope."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('jangada.scope', 'system', true)")
        return connection.execute(query.encode()).fetchall()


def contents(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    names = [str(name) for (name,) in seen(url, TABLES)]
    return {name: seen(url, f"SELECT t::text FROM {name} t ORDER BY 1") for name in names}  # noqa: S608 - names of tables


async def test_what_is_restored_is_what_was_there(
    database: Database, database_url: str, place: dict[str, str]
) -> None:
    for name in ("One", "Other"):
        person = await make_person(database, name)
        async with database.transaction(person.tenant_id) as session:
            await service.enqueue(session, Ping(), tenant_id=person.tenant_id)
    scripts = blocks()
    assert len(scripts) == 5
    for script in scripts:
        ended = shell(script, place)
        assert ended.returncode == 0, f"{script}\n{ended.stdout}{ended.stderr}"
    restored = place["RESTORED_URL"]
    backed_up = contents(database_url)
    assert [len(backed_up[name]) for name in ("jobs", "users", "memberships")] == [2, 2, 2]
    assert contents(restored) == backed_up
    assert seen(restored, GUARDS) == seen(database_url, GUARDS)
    with psycopg.connect(restored) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


async def test_the_two_ways_to_get_it_wrong_are_as_the_guide_says(
    database: Database, place: dict[str, str]
) -> None:
    await make_person(database)
    dump, look, *_ = blocks()
    refused = shell(dump.replace("--enable-row-security", ""), place)
    assert refused.returncode != 0
    assert "row-level security" in refused.stderr
    empty = shell(dump.replace("PGOPTIONS='-c jangada.scope=system'", ""), place)
    assert empty.returncode == 0
    assert shell(look, place).returncode == 1


async def test_a_dump_into_a_database_in_use_changes_nothing(
    database: Database, postgres: EmbeddedPostgres, place: dict[str, str]
) -> None:
    """`--single-transaction` and `--exit-on-error`: all or nothing."""
    await make_person(database)
    dump, _, create, restore, _ = blocks()
    assert shell(dump, place).returncode == 0
    assert shell(create, place).returncode == 0
    with psycopg.connect(place["RESTORED_URL"]) as connection:
        connection.execute(sql.SQL("CREATE TABLE users (id integer)"))
    assert shell(restore, place).returncode != 0
    tables = seen(place["RESTORED_URL"], TABLES)
    assert tables == [("users",)]
    async with database.system_transaction("test") as session:
        assert await session.scalar(text("SELECT count(*) FROM users")) == 1
