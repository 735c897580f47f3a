"""Migrations up, down and at once, on empty and full databases, and against locks."""

import asyncio
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
import stamina
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from chaos.forkserver import ForkServer
from pydantic import SecretStr
from sqlalchemy import Connection, ForeignKeyConstraint, String

import jangada
from jangada.config import DatabaseSettings
from jangada.db import Base, Database, new_id
from jangada.jobs import service
from jangada.jobs.schemas import JobArgs
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.process import Command, wait_until
from jangada.migrations import run
from jangada.migrations.revisions import current, head
from jangada.postgres_errors import DatabaseUnavailable
from jangada.testing import eventually, make_person

WITHOUT_MODEL: Final = {
    "alembic_version": "Alembic's own",
    "session_ends": "written by a trigger, read by SQL",
}
"""Tables that no ORM class stands for."""

WITHOUT_KEY: Final = {("import_rejects", "tenant_id", "tenants.id")}
"""References that a model leaves out: it is reached through another one."""

PATIENCE: Final = 100
GUIDE: Final = Path(__file__).parents[3] / "docs/guides/upgrade.md"


def revisions() -> list[str]:
    """Oldest first."""
    script = ScriptDirectory.from_config(run.configuration())
    return [each.revision for each in script.walk_revisions()][::-1]


def settings_for(url: str, **more: Any) -> DatabaseSettings:  # noqa: ANN401 - of many types
    return DatabaseSettings.model_validate({"url": SecretStr(url)} | more)


@pytest.fixture
def empty_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A database without a single table."""
    name = f"empty_{new_id().hex}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def empty(empty_url: str) -> DatabaseSettings:
    return settings_for(empty_url)


def snapshot(settings: DatabaseSettings) -> dict[str, list[tuple[Any, ...]]]:
    """All that migrations make, as the catalogue has it."""
    queries = {
        "columns": """SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod),
            attnotnull, pg_get_expr(adbin, adrelid) FROM pg_attribute
            LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            JOIN pg_class ON pg_class.oid = attrelid
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
            AND NOT attisdropped""",
        "constraints": """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace""",
        "indexes": """SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid
            FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
            WHERE relnamespace = 'public'::regnamespace""",
        "policies": "SELECT tablename, policyname, qual, with_check FROM pg_policies",
        "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
        "triggers": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
    }
    with psycopg.connect(settings.url.get_secret_value()) as connection:
        return {
            name: sorted(connection.execute(query.encode()).fetchall(), key=repr)
            for name, query in queries.items()
        }


def test_up_down_and_up_again_is_where_up_is(empty: DatabaseSettings) -> None:
    bare = snapshot(empty)
    assert current(empty) is None
    assert run.upgrade(empty) == head()
    once = snapshot(empty)
    assert run.downgrade(empty, target="base") is None
    left = [row for row in snapshot(empty)["columns"] if row[0] != "alembic_version"]
    assert left == bare["columns"] == []
    assert run.upgrade(empty) == head()
    assert snapshot(empty) == once


def test_every_revision_can_be_taken_back_by_itself(empty: DatabaseSettings) -> None:
    for revision in revisions():
        before = snapshot(empty)
        assert run.upgrade(empty, target=revision) == revision
        after = snapshot(empty)
        run.downgrade(empty, target="-1")
        if revision != revisions()[0]:
            assert snapshot(empty) == before
        run.upgrade(empty, target=revision)
        assert snapshot(empty) == after


def test_revisions_are_in_line_and_say_when_they_run() -> None:
    """`is_newer` compares the ids as text; `pre` runs before the new code, `post` after it."""
    script = ScriptDirectory.from_config(run.configuration())
    found = list(script.walk_revisions())
    ids = [each.revision for each in found]
    assert ids == sorted(ids, reverse=True)
    assert [each.down_revision for each in found] == [*ids[1:], None]
    assert head() == script.get_current_head()
    names = [Path(each.path).name for each in found]
    assert [name for name in names if not re.fullmatch(r"\d{4}_(pre|post)_\w+\.py", name)] == []


class Ping(JobArgs):
    """A job that says nothing."""

    kind = "test.ping"


async def seed(url: str) -> None:
    database = Database(settings_for(url))
    person = await make_person(database)
    async with database.transaction(person.tenant_id) as session:
        await service.enqueue(session, Ping(), tenant_id=person.tenant_id)
    await database.close()


def test_a_full_database_migrates_down_and_up(empty: DatabaseSettings, empty_url: str) -> None:
    run.upgrade(empty)
    asyncio.run(seed(empty_url))
    assert run.upgrade(empty) == head()
    assert rows_of_people(empty) == (1, 1)
    assert run.downgrade(empty, target="0001") == "0001"
    assert run.upgrade(empty) == head()
    assert rows_of_people(empty) == (1, 1)
    assert run.downgrade(empty, target="base") is None


def rows_of_people(settings: DatabaseSettings) -> tuple[int, int]:
    with psycopg.connect(settings.url.get_secret_value()) as connection:
        connection.execute("SELECT set_config('jangada.scope', 'system', true)")
        row = connection.execute(
            "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM memberships)"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def in_a_process(forks: ForkServer, url: str) -> tuple[int, str]:
    command = Command(
        argv=[sys.executable, "-m", "jangada", "migrate"],
        environ=os.environ
        | {"JANGADA_DATABASE__URL": url, "JANGADA_TELEMETRY__LOG_FORMAT": "json"},
    )
    done = forks.run(command)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.anyio
async def test_of_five_runners_at_once_one_applies_and_all_succeed(
    empty_url: str, forks: ForkServer
) -> None:
    async with (
        asyncio.timeout(PATIENCE),
        await psycopg.AsyncConnection.connect(empty_url, autocommit=True) as holder,
    ):
        await holder.execute("SELECT pg_advisory_lock(%s)", (run.LOCK_KEY,))
        runners = [
            asyncio.create_task(asyncio.to_thread(in_a_process, forks, empty_url)) for _ in range(5)
        ]

        async def all_wait() -> bool:
            return await waiting_runners(holder) == len(runners)

        await eventually(all_wait)
        await holder.execute("SELECT pg_advisory_unlock(%s)", (run.LOCK_KEY,))
        ended = await asyncio.gather(*runners)
    assert [code for code, _ in ended] == [0] * 5
    applied = [output.count("Running upgrade") for _, output in ended]
    assert sorted(applied) == [0, 0, 0, 0, len(revisions())]
    assert all(f"The schema is at {head()}." in output for _, output in ended)


def test_a_schema_of_before_gets_the_policies_and_the_index_of_now(empty: DatabaseSettings) -> None:
    """Also where an attempt broke off while it built the index, and left something."""
    run.upgrade(empty)
    now = snapshot(empty)
    run.downgrade(empty, target="0007")
    with psycopg.connect(empty.url.get_secret_value()) as connection:
        connection.execute("ALTER POLICY tenant ON contacts USING (false) WITH CHECK (false)")
        connection.execute("CREATE INDEX ix_contacts_names ON contacts (company)")
    run.upgrade(empty)
    assert snapshot(empty) == now


def test_a_migration_that_is_killed_leaves_no_statement_in_the_server(
    empty: DatabaseSettings,
) -> None:
    """It builds an index, and waits for somebody who writes: the next one needs its locks."""
    url = empty.url.get_secret_value()
    run.upgrade(empty, target="0008")
    command = [sys.executable, "-m", "jangada", "migrate"]
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE contacts IN ROW EXCLUSIVE MODE")
        with subprocess.Popen(command, env=os.environ | {"JANGADA_DATABASE__URL": url}) as killed:  # noqa: S603 - ours
            assert wait_until(lambda: bool(waiting_pids(url)), PATIENCE)
            killed.kill()
        assert wait_until(lambda: not waiting_pids(url), PATIENCE)
        holder.rollback()
    assert run.upgrade(empty) == head()


def test_a_runner_whose_turn_does_not_come_says_so(
    empty: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOCK_WAIT", timedelta(0))
    with psycopg.connect(empty.url.get_secret_value()) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (run.LOCK_KEY,))
        with pytest.raises(run.SchemaLocked, match="Another migration has been running"):
            run.upgrade(empty)
    assert current(empty) is None


async def waiting_runners(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> int:
    """Asked now and then: the runners need the processor more."""
    row = await (
        await connection.execute(
            # allow sleep: it is asked again and again
            """SELECT count(*) FROM pg_sleep(0.05), pg_stat_activity
            WHERE datname = current_database() AND query LIKE 'SELECT pg_try_advisory_lock%%'"""
        )
    ).fetchone()
    return row[0] if row else 0


def lock_tenants(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A transaction of somebody else that every later revision must wait for."""
    connection = psycopg.connect(url)
    connection.execute("LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE")
    return connection


def waiting_pids(url: str) -> set[int]:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            """SELECT pid FROM pg_stat_activity WHERE datname = current_database()
            AND application_name = 'jangada-migrate' AND wait_event_type = 'Lock'"""
        ).fetchall()
    return {row[0] for row in found}


def test_the_guide_s_query_names_who_is_in_the_way(empty: DatabaseSettings) -> None:
    query = re.search(r"^```sql\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert query is not None
    url = empty.url.get_secret_value()
    run.upgrade(empty, target="0001")
    with lock_tenants(url) as holder, ThreadPoolExecutor(1) as pool:
        migrating: Future[str | None] = pool.submit(run.upgrade, empty)
        with psycopg.connect(url, autocommit=True) as asking:
            while not (found := asking.execute(query[1].encode()).fetchall()):
                assert not migrating.done()
        assert [row[0] for row in found] == [holder.info.backend_pid]
        holder.rollback()
        assert migrating.result(timeout=PATIENCE) == head()


def test_a_locked_table_is_tried_again_until_it_is_free(empty: DatabaseSettings) -> None:
    url = empty.url.get_secret_value()
    run.upgrade(empty, target="0001")
    hurried = settings_for(url, lock_timeout="100ms")
    with lock_tenants(url) as holder, ThreadPoolExecutor(1) as pool:
        migrating: Future[str | None] = pool.submit(run.upgrade, hurried)
        tries = set[int]()
        while len(tries) < 2:
            assert not migrating.done()
            tries |= waiting_pids(url)
        holder.rollback()
        assert migrating.result(timeout=PATIENCE) == head()


def test_a_table_that_stays_locked_is_given_up_and_nothing_has_changed(
    empty: DatabaseSettings,
) -> None:
    url = empty.url.get_secret_value()
    run.upgrade(empty, target="0001")
    before = snapshot(empty)
    hurried = settings_for(url, lock_timeout="50ms")
    with (
        lock_tenants(url),
        stamina.set_testing(True, attempts=2),
        pytest.raises(run.SchemaLocked, match=r"Table tenants is held by process \d+ of role"),
    ):
        run.upgrade(hurried)
    assert current(empty) == "0001"
    assert snapshot(empty) == before


def test_a_migration_waits_for_no_lock_and_no_statement_for_long(empty: DatabaseSettings) -> None:
    timeouts = {"lock_timeout": timedelta(seconds=1), "statement_timeout": run.STATEMENT_TIMEOUT}
    with run._connected(empty, timeouts) as connection:
        for name, value in (("lock_timeout", "1s"), ("statement_timeout", "5s")):
            assert connection.exec_driver_sql(f"SHOW {name}").scalar_one() == value


def test_the_urls_own_options_hold_for_migrations(empty_url: str) -> None:
    """As where every application has a schema of its own."""
    with psycopg.connect(empty_url) as connection:
        connection.execute("CREATE SCHEMA app")
    run.upgrade(settings_for(f"{empty_url}&options=-csearch_path%3Dapp"))
    with psycopg.connect(empty_url) as connection:
        schemas = connection.execute(
            "SELECT DISTINCT schemaname FROM pg_tables WHERE tableowner = current_user"
        ).fetchall()
    assert schemas == [("app",)]


def set_revision(settings: DatabaseSettings, revision: str) -> None:
    with psycopg.connect(settings.url.get_secret_value()) as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", (revision,))


def test_a_newer_schema_is_left_as_it_is(empty: DatabaseSettings) -> None:
    """During a rollback the older release finds its tables: migrations only expand."""
    run.upgrade(empty)
    set_revision(empty, "9999")
    before = snapshot(empty)
    assert run.is_newer(current(empty))
    assert run.upgrade(empty) == "9999"
    assert snapshot(empty) == before


def test_an_absent_server_is_said_to_be_absent() -> None:
    with pytest.raises(DatabaseUnavailable):
        current(settings_for("postgresql://u@/d?host=/nowhere"))


def test_the_command_checks_without_changing_and_migrates(
    program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, empty: DatabaseSettings
) -> None:
    monkeypatch.setenv("JANGADA_DATABASE__URL", empty.url.get_secret_value())
    wanted = f"this release needs {head()}."
    absent = program("migrate", "--check")
    assert absent.code == 1
    assert f"The schema is at None; {wanted}\n" in absent.err
    assert current(empty) is None
    assert program("migrate").out == f"The schema is at {head()}.\n"
    present = program("migrate", "--check")
    assert (present.code, present.out) == (0, f"The schema is at {head()}; {wanted}\n")
    set_revision(empty, "0001")
    assert program("migrate", "--check").code == 1
    set_revision(empty, "9999")
    assert program("migrate", "--check").code == 0
    ahead = program("migrate")
    assert ahead.code == 0
    assert "(newer than this release; nothing to do)" in ahead.out


def test_the_command_waits_for_a_schema_and_says_for_what(
    empty: DatabaseSettings, program: Callable[..., Any]
) -> None:
    environ = os.environ | {"JANGADA_DATABASE__URL": empty.url.get_secret_value()}
    command = [sys.executable, "-m", "jangada", "migrate", "--check", "--wait", "100"]
    with subprocess.Popen(  # noqa: S603 - our own program
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stderr is not None
        said = next(line for line in waiting.stderr if "alembic" in line or "schema" in line)
        assert said.startswith("The schema is at None"), "and nothing else, each second"
        run.upgrade(empty)
        out, _ = waiting.communicate(timeout=100)
    assert (waiting.returncode, out) == (
        0,
        f"The schema is at {head()}; this release needs {head()}.\n",
    )


def test_the_command_waits_for_postgresql_before_it_migrates(
    empty: DatabaseSettings, program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JANGADA_DATABASE__URL", empty.url.get_secret_value())
    assert program("migrate", "--wait", "100").out == f"The schema is at {head()}.\n"
    monkeypatch.setenv("JANGADA_DATABASE__URL", "postgresql://u@/d?host=/nowhere")
    ended = program("migrate", "--wait", "0.1")
    assert ended.code == 1
    assert "PostgreSQL can't be asked yet" in ended.err


def test_the_command_s_patience_has_an_end(
    program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JANGADA_DATABASE__URL", "postgresql://u@/d?host=/nowhere")
    ended = program("migrate", "--check", "--wait", "0.1")
    assert ended.code == 1
    assert "PostgreSQL can't be asked yet" in ended.err


def test_the_command_says_why_it_cannot_and_warns_of_slips(
    program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JANGADA_DATABASE__URL", "postgresql://u:canary@/d?host=/nowhere")
    monkeypatch.setenv("JANGADA_DATABSE__URL", "canary")
    monkeypatch.setenv("JANGADA_TELEMETRY__LOG_FORMAT", "json")
    ended = program("migrate")
    assert ended.code == 69
    assert "/nowhere" in ended.err
    assert '"nearest":"JANGADA_DATABASE__URL"' in ended.err
    assert "canary" not in ended.out + ended.err


def same_text(*columns_and_types: object) -> bool | None:
    """All text is `text` in PostgreSQL: a length is a CHECK, an enum one of values."""
    *_, inspected, declared = columns_and_types
    return False if isinstance(inspected, String) and isinstance(declared, String) else None


def is_expressed(_: object, name: str | None, kind: str, *__: object) -> bool:
    """Indexes and unique keys are said once, in the migration, with their conditions."""
    return kind not in {"index", "unique_constraint"} and name not in WITHOUT_MODEL


def differences(connection: Connection) -> list[Any]:
    options = {
        "compare_type": same_text,
        "include_object": is_expressed,
        "include_name": lambda name, kind, _: kind != "table" or name not in WITHOUT_MODEL,
    }
    context = MigrationContext.configure(connection, opts=options)
    found = list(compare_metadata(context, Base.metadata))
    keys = [change for change in found if change[0] in ("remove_fk", "add_fk")]
    removed, added = (
        {reference(key) for found_verb, key in keys if found_verb == verb}
        for verb in ("remove_fk", "add_fk")
    )
    said_once = (removed & added) | WITHOUT_KEY
    other = [change for change in found if change not in keys]
    return other + [(verb, key) for verb, key in keys if reference(key) not in said_once]


def reference(key: ForeignKeyConstraint) -> tuple[str, ...]:
    """What refers to what; what becomes of it on deletion is said once, in the migration."""
    return (key.table.name, *key.column_keys, *sorted(e.target_fullname for e in key.elements))


@pytest.mark.anyio
async def test_the_models_are_what_the_migrations_make(database: Database) -> None:
    for module in pkgutil.walk_packages(jangada.__path__, "jangada."):
        if module.name.endswith(".models"):
            importlib.import_module(module.name)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        names = await connection.run_sync(lambda sync: sync.dialect.get_table_names(sync))
    assert set(WITHOUT_MODEL) == set(names) - set(Base.metadata.tables)


@pytest.mark.anyio
async def test_a_difference_between_model_and_migration_is_found(database: Database) -> None:
    """The test above is no rubber stamp."""
    alterations: list[tuple[str, str]] = [
        ("ALTER TABLE jobs ALTER COLUMN kind DROP NOT NULL", "modify_nullable"),
        ("ALTER TABLE jobs ADD COLUMN extra integer", "remove_column"),
        ("ALTER TABLE jobs ALTER COLUMN attempt TYPE bigint", "modify_type"),
        ("ALTER TABLE memberships DROP CONSTRAINT fk_memberships_user_id_users", "add_fk"),
    ]
    for statement, expected in alterations:
        assert expected in await found_after(database, statement)


async def found_after(database: Database, statement: str) -> str:
    async with database.engine.connect() as connection:
        await connection.exec_driver_sql(statement)
        found: Awaitable[list[Any]] = connection.run_sync(differences)
        return repr(await found)
