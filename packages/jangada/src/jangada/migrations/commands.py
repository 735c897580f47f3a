"""`jangada migrate`: bring the schema to what this release needs."""

from typing import Annotated

import typer

from jangada.migrations import run
from jangada.migrations.revisions import head
from jangada.runtime import start


def register(app: typer.Typer) -> None:
    app.command("migrate")(migrate)


def migrate(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 unless the schema is there.")
    ] = False,
) -> None:
    """Bring the database's schema to what this release needs. Safe to run any number of times."""
    settings = start("jangada-migrate")
    if check:
        _check(run.current(settings.database))
        return
    revision = run.upgrade(settings.database)
    suffix = " (newer than this release; nothing to do)" if run.is_newer(revision) else ""
    typer.echo(f"The schema is at {revision}{suffix}.")


def _check(revision: str | None) -> None:
    if revision is not None and revision >= head():
        typer.echo(f"The schema is at {revision}; this release needs {head()}.")
        return
    typer.echo(f"The schema is at {revision}; this release needs {head()}.", err=True)
    raise typer.Exit(1)
