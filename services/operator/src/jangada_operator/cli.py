"""`jangada-operator`: its commands are modules of their own.

jangada-operator simulate --trace bursts     what policies would do with a load
"""

import typer

from jangada_operator.simulate import simulate


def build() -> typer.Typer:
    """The program `jangada-operator`."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

    # With a callback the only command keeps its name.
    def keep_group() -> None:
        """Worker pools that follow their queues."""

    app.callback()(keep_group)
    app.command()(simulate)
    return app


def main() -> None:
    """Run `jangada-operator`."""
    build()()
