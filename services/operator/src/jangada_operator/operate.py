"""`jangada-operator run` and `manifests`: the operator in a cluster, and what it needs there."""

import asyncio
import logging
from importlib.resources import files
from typing import Annotated, Final

import typer

from jangada_operator import app, definition
from jangada_operator.exits import EXIT_CONFIG, EXIT_UNAVAILABLE, failed
from jangada_operator.kube import KubeError, Misconfigured
from jangada_operator.login import own_namespace
from jangada_operator.management import NoPort

FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

Port = Annotated[
    int,
    typer.Option(
        min=0,
        max=65535,
        help="Port of health and metrics; 0 takes a free one.",
        envvar="JANGADA_OPERATOR_PORT",
    ),
]


def run(
    *,
    namespaces: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace",
            help="Only pools of this namespace; more than once for several. Default: all.",
            envvar="JANGADA_OPERATOR_NAMESPACES",
        ),
    ] = None,
    lease_namespace: Annotated[
        str | None,
        typer.Option(
            help="Where the leader's lease is. Default: the pod's namespace, or your kubeconfig's.",
            envvar=["JANGADA_OPERATOR_LEASE_NAMESPACE", "POD_NAMESPACE"],
        ),
    ] = None,
    lease_name: Annotated[
        str,
        typer.Option(
            help="Operators of one lease take turns. They leave pools alone whose label "
            "jangada.dev/operator names another lease.",
            envvar="JANGADA_OPERATOR_LEASE_NAME",
        ),
    ] = "jangada-operator",
    host: Annotated[
        str,
        typer.Option(help="Address of health and metrics.", envvar="JANGADA_OPERATOR_HOST"),
    ] = "0.0.0.0",  # noqa: S104 - a pod's own port, which a NetworkPolicy guards
    port: Port = 8081,
) -> None:
    """Scale all WorkerPools by their queues, until told to stop."""
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        options = app.Options(
            namespaces=tuple(namespaces or ()),
            lease_namespace=lease_namespace or own_namespace(),
            lease_name=lease_name,
            host=host,
            port=port,
        )
        asyncio.run(app.run(options))
    except (KubeError, NoPort) as error:
        is_wrong = isinstance(error, Misconfigured | NoPort)
        raise failed(str(error), EXIT_CONFIG if is_wrong else EXIT_UNAVAILABLE) from error


def manifests(
    *,
    crd_only: Annotated[
        bool, typer.Option("--crd-only", help="Only the definition of WorkerPool.")
    ] = False,
) -> None:
    """Print what the operator needs in a cluster, for `kubectl apply -f -`."""
    parts = [definition.manifest()]
    if not crd_only:
        parts.append((files("jangada_operator") / "manifests" / "rbac.yaml").read_text("utf-8"))
    typer.echo("---\n".join(parts), nl=False)
