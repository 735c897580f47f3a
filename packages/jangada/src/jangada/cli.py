"""The program `jangada`: sub-commands come from entry points of the group `jangada.commands`.

Each distribution brings its own, so the domain imports no service; an image that holds only the API
has only the API's commands. An entry point bears the name of the sub-command that it registers.
"""

import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from importlib.metadata import version as version_of
from typing import Annotated

import typer
from rich.console import Console

from jangada.config import TelemetrySettings, load_settings, unknown_keys
from jangada.errors import JangadaError, NotFound, Unavailable
from jangada.loading import loading
from jangada.starting import hold
from jangada.telemetry import configure_logging, describe

GROUP = "jangada.commands"
EXIT_ERROR = 1
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h: trying again later may help


class CommandNotInstalled(NotFound):
    """The command's packages are not installed here, as those of `jangada up` in an image."""

    code = "command.not_installed"


def build(command: str | None = None) -> typer.Typer:
    """The program, with all sub-commands or at least this one."""
    app = typer.Typer(
        name="jangada",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_keep_group)
    for register in _registrations(command):
        register(app)
    return app


def _tell_version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"jangada {version_of('jangada')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_tell_version, is_eager=True, help="Show the version and exit."
    ),
]


def _keep_group(*, version: Version = False) -> None:
    """Jangada: a multi-tenant API with durable background jobs."""
    del version  # the option has a callback of its own


def _registrations(command: str | None) -> Iterable[Callable[[typer.Typer], None]]:
    """What registers the command, or everything where no entry point bears its name.

    Loading one entry point instead of all keeps `jangada migrate` from importing a web framework.
    A command whose packages are absent is not offered, and says so when it is called.
    """
    entries = entry_points(group=GROUP)
    chosen = entries.select(name=command) if command in entries.names else entries
    found = {}
    for entry in sorted(chosen, key=lambda entry: entry.name):
        try:
            found[entry.value] = entry.load()
        except ModuleNotFoundError as error:
            if entry.name == command:
                raise CommandNotInstalled(
                    f"`jangada {command}` needs the package {error.name}, which is not installed."
                ) from error
    return found.values()


config = typer.Typer(help="Look at the settings.", no_args_is_help=True)


def register_config(app: typer.Typer) -> None:
    app.add_typer(config, name="config")


@config.callback()
def _config() -> None:
    """Look at the settings."""


@config.command()
def check(
    *,
    strict: Annotated[
        bool, typer.Option("--strict", help="Unknown JANGADA_ variables are errors too.")
    ] = False,
) -> None:
    """Read the settings from the environment as a service would; exit 1 and name each wrong key."""
    # Here and not above: they bring the clients of every server.
    with loading():
        from jangada.files.blobs import usable_storage  # noqa: PLC0415 - as said
        from jangada.runtime import master_key  # noqa: PLC0415 - as said

    hold(load_settings(), master_key, usable_storage)
    unknown = list(unknown_keys(os.environ))
    for key, nearest in unknown:
        hint = f"; did you mean {nearest}?" if nearest else ""
        typer.echo(f"{key}: no such setting{hint}", err=True)
    if unknown and strict:
        raise typer.Exit(EXIT_ERROR)
    typer.echo("The settings are valid.")


def main() -> None:
    """Run a command; an expected error is one line on stderr and an exit code, no traceback."""
    # Until a command sets up its own: what isn't set up writes everything to stdout, unredacted.
    configure_logging(TelemetrySettings(log_level="WARNING"))
    try:
        with loading():
            program = build(next(iter(sys.argv[1:]), None))
        program()
    except JangadaError as error:
        cause = error.__cause__ if isinstance(error, Unavailable) else None
        reason = f" ({' '.join(describe(cause).split())})" if cause is not None else ""
        Console(stderr=True).print(
            f"jangada: {error.detail}{reason}", style="red", markup=False, soft_wrap=True
        )
        sys.exit(EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_ERROR)
