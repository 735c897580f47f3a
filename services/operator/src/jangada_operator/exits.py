"""How commands of the operator end when they can't do what was asked."""

from typing import Final

import typer

from jangada_operator.kube import KubeError, Misconfigured, Refused

EXIT_ERROR: Final = 1
EXIT_UNAVAILABLE: Final = 69  # EX_UNAVAILABLE of sysexits.h: trying again later may help
EXIT_CONFIG: Final = 78  # EX_CONFIG: it won't, before somebody mends the settings


def failed(text: str, code: int = EXIT_ERROR) -> typer.Exit:
    """Tell on standard error what is wrong; answers what to raise."""
    typer.echo(f"Error: {text}", err=True)
    return typer.Exit(code)


def refused(error: KubeError) -> typer.Exit:
    """The same of a cluster that can't be asked, or doesn't let us."""
    is_wrong = isinstance(error, Refused | Misconfigured)
    return failed(str(error), EXIT_ERROR if is_wrong else EXIT_UNAVAILABLE)
