"""The program `jangada`: sub-commands come from entry points of the group `jangada.commands`.

Each distribution brings its own, so the domain imports no service; an image that holds only the API
has only the API's commands.
"""

import sys
from importlib.metadata import entry_points

import typer
from rich.console import Console

from jangada.errors import JangadaError, Unavailable

EXIT_ERROR = 1
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h: trying again later may help


def build() -> typer.Typer:
    app = typer.Typer(
        name="jangada",
        help="Jangada: a multi-tenant API with durable background jobs.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    for entry in sorted(entry_points(group="jangada.commands"), key=lambda e: e.name):
        entry.load()(app)
    return app


def main() -> None:
    """Run a command; an expected error is one line on stderr and an exit code, no traceback."""
    try:
        build()()
    except JangadaError as error:
        Console(stderr=True).print(f"jangada: {error.detail}", style="red", markup=False)
        sys.exit(EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_ERROR)


if __name__ == "__main__":
    main()
