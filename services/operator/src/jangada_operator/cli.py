"""`jangada-operator`: its commands are modules of their own.

jangada-operator run                         scale all WorkerPools of a cluster
jangada-operator explain POOL                why a pool has its size
jangada-operator manifests                   what the operator needs in a cluster
jangada-operator simulate --trace bursts     what policies would do with a load
"""

import typer

from jangada_operator.explaining import explain
from jangada_operator.operate import manifests, run
from jangada_operator.simulate import simulate


def build() -> typer.Typer:
    """The program `jangada-operator`."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

    app.info.help = "Worker pools that follow their queues."
    for command in (run, explain, manifests, simulate):
        app.command()(command)
    return app


def main() -> None:
    """Run `jangada-operator`."""
    build()()


if __name__ == "__main__":
    main()
