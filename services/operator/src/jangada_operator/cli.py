"""`jangada-operator`: its commands are modules of their own.

jangada-operator run                         scale all WorkerPools of a cluster
jangada-operator explain POOL                why a pool has its size
jangada-operator check POOL                  whether it is looked after
jangada-operator manifests                   what the operator needs in a cluster
jangada-operator simulate --trace bursts     what policies would do with a load
"""

from importlib.metadata import version as version_of
from typing import Annotated

import typer

from jangada_operator.checking import check
from jangada_operator.explaining import explain
from jangada_operator.operate import manifests, run
from jangada_operator.simulate import simulate


def build() -> typer.Typer:
    """The program `jangada-operator`."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

    app.callback()(_keep_group)
    for command in (run, explain, check, manifests, simulate):
        app.command()(command)
    return app


def _tell_version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"jangada-operator {version_of('jangada-operator')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_tell_version, is_eager=True, help="Show the version and exit."
    ),
]


def _keep_group(*, version: Version = False) -> None:
    """Worker pools that follow their queues."""
    del version  # the option has a callback of its own


def main() -> None:
    """Run `jangada-operator`."""
    build()()


if __name__ == "__main__":
    main()
