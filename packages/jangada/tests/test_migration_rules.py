"""What a migration may do while the code of before runs beside it, and traffic goes on.

A `pre` revision only expands: nothing that somebody uses goes, changes its name or its type, or is
demanded at once, and no table is locked for as long as it is large. A `post` revision may take away
what no release uses any more, a release later. Squawk reads the statements as Alembic writes them.
"""

import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from alembic import op
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from jangada.migrations.indexes import beside_traffic
from jangada.migrations.revisions import VERSIONS

SQUAWK: Final = Path(sys.executable).parent / "squawk"
ELSEWHERE: Final = (
    "require-lock-timeout",  # `jangada.migrations.run` sets both
    "require-statement-timeout",
    "prefer-bigint-over-int",  # a matter of what is counted
    "prefer-bigint-over-smallint",
    "prefer-robust-stmts",  # what is built beside a transaction says how it begins anew
    "transaction-nesting",  # Alembic writes both around what is built beside a transaction
    "ban-uncommitted-transaction",
)
LATER: Final = frozenset({"ban-drop-column", "ban-drop-table", "ban-drop-not-null"})
"""What a `post` revision is for."""

KNOWN: Final = {
    ("0006_pre_dispatch", "require-concurrent-index-deletion"),
    ("0006_pre_dispatch", "adding-field-with-default"),
    ("0006_pre_dispatch", "require-concurrent-index-creation"),
    ("0007_pre_job_rows", "require-concurrent-index-creation"),
}
"""Of before the first release, when nobody had data. Nothing is added here: mend the revision."""


def statements(upgrade: Callable[[], None]) -> str:
    """What a revision does, as SQL; one that asks the database first can't be read so."""
    written = io.StringIO()
    options = {"as_sql": True, "output_buffer": written}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with Operations.context(context):
        upgrade()
    return written.getvalue()


def load(path: Path) -> Callable[[], None]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    upgrade: Callable[[], None] = module.upgrade
    return upgrade


def broken(name: str, sql: str, folder: Path) -> Iterator[tuple[str, str]]:
    """The rules that a revision breaks, with its name."""
    path = folder / f"{name}.sql"
    path.write_text(sql)
    excluded = [f"--exclude={rule}" for rule in ELSEWHERE]
    options = ["--assume-in-transaction", "--pg-version=15", "--reporter=json", *excluded]
    done = subprocess.run(  # noqa: S603 - a program that we pin
        [str(SQUAWK), *options, str(path)], capture_output=True, text=True, check=False
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    for each in found:
        if "_post_" not in name or each["rule_name"] not in LATER:
            yield name, each["rule_name"]


def test_every_revision_lets_the_code_before_it_work(tmp_path: Path) -> None:
    found = {
        each
        for path in sorted(VERSIONS.glob("[0-9]*.py"))
        for each in broken(path.stem, statements(load(path)), tmp_path)
    }
    assert found == KNOWN


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("ALTER TABLE users DROP COLUMN name", "ban-drop-column"),
        ("DROP TABLE users", "ban-drop-table"),
        ("ALTER TABLE users RENAME COLUMN name TO label", "renaming-column"),
        ("ALTER TABLE users RENAME TO people", "renaming-table"),
        ("ALTER TABLE users ADD COLUMN age integer NOT NULL", "adding-required-field"),
        ("ALTER TABLE users ALTER COLUMN name SET NOT NULL", "adding-not-nullable-field"),
        ("ALTER TABLE users ALTER COLUMN name TYPE bytea", "changing-column-type"),
        ("ALTER TABLE users ADD CONSTRAINT a CHECK (age > 1)", "constraint-missing-not-valid"),
        ("CREATE INDEX a ON users (name)", "require-concurrent-index-creation"),
        ("DROP INDEX a", "require-concurrent-index-deletion"),
    ],
)
def test_a_revision_that_breaks_the_contract_is_found(
    statement: str, rule: str, tmp_path: Path
) -> None:
    """Where it has to be: of what goes, a `post` revision is free."""
    sql = statements(lambda: op.execute(statement))
    assert ("0099_pre_x", rule) in set(broken("0099_pre_x", sql, tmp_path))
    is_free = ("0099_post_x", rule) not in set(broken("0099_post_x", sql, tmp_path))
    assert is_free is (rule in LATER)


def test_what_expands_is_taken(tmp_path: Path) -> None:
    """As CONTRIBUTING.md has it for an index of a table that is there."""

    def upgrade() -> None:
        op.execute("CREATE TABLE notes (id uuid PRIMARY KEY, text text NOT NULL)")
        op.execute("CREATE INDEX ix_notes_text ON notes (text)")
        op.execute("ALTER TABLE users ADD COLUMN age integer NOT NULL DEFAULT 0")
        with beside_traffic():
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_users_age")
            op.execute("CREATE INDEX CONCURRENTLY ix_users_age ON users (age)")

    assert list(broken("0099_pre_x", statements(upgrade), tmp_path)) == []
