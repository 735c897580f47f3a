"""`jangada migrate`: bring the schema to what this release needs, or wait for it."""

import time
from typing import Annotated, Final

import typer

from jangada.config import DatabaseSettings
from jangada.errors import Unavailable
from jangada.migrations import run
from jangada.migrations.revisions import head
from jangada.runtime import start

LOOK_AGAIN: Final = 1.0


def register(app: typer.Typer) -> None:
    app.command("migrate")(migrate)


def migrate(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 unless the schema is there.")
    ] = False,
    wait: Annotated[
        float,
        typer.Option(min=0, help="With --check: wait for it for so many seconds."),
    ] = 0,
) -> None:
    """Bring the database's schema to what this release needs. Safe to run any number of times."""
    if wait and not check:
        raise typer.BadParameter("only --check waits", param_hint="--wait")
    settings = start("jangada-migrate")
    if check:
        _check(settings.database, wait)
        return
    revision = run.upgrade(settings.database)
    suffix = " (newer than this release; nothing to do)" if run.is_newer(revision) else ""
    typer.echo(f"The schema is at {revision}{suffix}.")


def _check(settings: DatabaseSettings, wait: float) -> None:
    """Say what is waited for whenever that changes."""
    until, said = time.monotonic() + wait, ""
    while True:
        is_there, found = _look(settings, is_last=not wait)
        if is_there:
            typer.echo(found)
            return
        if found != said:
            typer.echo(found, err=True)
            said = found
        if time.monotonic() >= until:
            raise typer.Exit(1)
        time.sleep(LOOK_AGAIN)


def _look(settings: DatabaseSettings, *, is_last: bool) -> tuple[bool, str]:
    """Whether the schema is there, and what was found. Raises `Unavailable` at the last look."""
    try:
        revision = run.current(settings)
    except Unavailable as error:
        if is_last:
            raise
        return False, f"PostgreSQL can't be asked yet: {error}"
    text = f"The schema is at {revision}; this release needs {head()}."
    return revision is not None and revision >= head(), text
