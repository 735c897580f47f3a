"""`jangada api`: serve the HTTP API."""

from typing import Annotated, Any

import typer

from jangada.config import Settings
from jangada.files.blobs import usable_storage
from jangada.loading import loading
from jangada.runtime import master_key
from jangada.starting import start

Port = typer.Option(min=0, max=65535, help="Instead of the setting; 0 takes a free one.")


def register(app: typer.Typer) -> None:
    app.command("api")(api)


def api(
    *,
    host: Annotated[str | None, typer.Option(help="Instead of JANGADA_API__HOST.")] = None,
    port: Annotated[int | None, Port] = None,
    management_port: Annotated[int | None, Port] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart whenever the code changes: for development.")
    ] = False,
) -> None:
    """Serve the HTTP API, and health and metrics on a port of their own."""
    # Here and not above: `jangada --help` need not load a web framework.
    with loading():
        from jangada_api import server  # noqa: PLC0415 - as said
        from jangada_api.reload import run_with_reload  # noqa: PLC0415 - as said

    settings = start(server.SERVICE, master_key, usable_storage)
    settings = with_options(settings, host=host, port=port, management_port=management_port)
    sockets = server.open_sockets(settings)
    if reload:
        run_with_reload(settings, sockets)
    else:
        server.run(settings, sockets, ready=server.announce)


def with_options(settings: Settings, **options: Any) -> Settings:  # noqa: ANN401 - of many types
    """The settings with those of the `api` section that were given on the command line."""
    given = {name: value for name, value in options.items() if value is not None}
    return settings.model_copy(update={"api": settings.api.model_copy(update=given)})
