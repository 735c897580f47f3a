"""`jangada migrate`: bring the schema to what this release needs, or wait for it."""

import time
from typing import Annotated, Final

import typer

from jangada.config import DatabaseSettings
from jangada.errors import Unavailable
from jangada.migrations.revisions import current, head
from jangada.starting import start

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
        typer.Option(
            min=0,
            help="Wait for so many seconds: for the schema with --check, else for PostgreSQL.",
        ),
    ] = 0,
) -> None:
    """Bring the database's schema to what this release needs. Safe to run any number of times."""
    settings = start("jangada-migrate")
    if check:
        typer.echo(_wait(settings.database, wait, for_schema=True))
        return
    if wait:
        _wait(settings.database, wait, for_schema=False)
    from jangada.migrations import run  # noqa: PLC0415 - Alembic takes longer than to look

    revision = run.upgrade(settings.database)
    suffix = " (newer than this release; nothing to do)" if run.is_newer(revision) else ""
    typer.echo(f"The schema is at {revision}{suffix}.")


def _wait(settings: DatabaseSettings, seconds: float, *, for_schema: bool) -> str:
    """Answers what was found at last, and says what is waited for whenever that changes."""
    until, said = time.monotonic() + seconds, ""
    while True:
        is_there, found = _look(settings, for_schema=for_schema, is_last=not seconds)
        if is_there:
            return found
        if found != said:
            typer.echo(found, err=True)
            said = found
        if time.monotonic() >= until:
            raise typer.Exit(1)
        time.sleep(LOOK_AGAIN)


def _look(settings: DatabaseSettings, *, for_schema: bool, is_last: bool) -> tuple[bool, str]:
    """Whether it is there, and what was found. Raises `Unavailable` at the last look."""
    try:
        revision = current(settings)
    except Unavailable as error:
        if is_last:
            raise
        return False, f"PostgreSQL can't be asked yet: {error}"
    text = f"The schema is at {revision}; this release needs {head()}."
    return not for_schema or (revision is not None and revision >= head()), text
