"""`jangada api --reload`: the API in a child process that is replaced whenever our code changes.

For development only. The sockets belong to the parent, so no connection is refused meanwhile: it
waits for the new child.
"""

import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import uvicorn
from uvicorn.supervisors.statreload import StatReload

from jangada.config import Settings, load_settings
from jangada.telemetry import configure_logging
from jangada_api.server import SERVICE, Sockets, announce, run

PACKAGES: Final = ("jangada", "jangada_queue", "jangada_api")


def run_with_reload(settings: Settings, sockets: Sockets) -> None:
    """Serve until a signal, anew after each change; the ready line is written once."""
    del settings  # the child reads its own, which may have changed too
    config = uvicorn.Config(
        "jangada_api.app:create_app", reload=True, reload_dirs=_folders(), log_config=None
    )
    announce(sockets)
    StatReload(config, target=_child, sockets=[sockets.public, sockets.management]).run()


def _child(sockets: list[socket.socket] | None) -> None:
    assert sockets is not None, "the parent gives both"  # noqa: S101 - for mypy: our own parent calls it
    public, management = sockets
    settings = load_settings()
    configure_logging(settings.telemetry, SERVICE)
    run(settings, Sockets(public, management), ready=lambda _: None)


def _folders() -> list[str]:
    specs = (find_spec(name) for name in PACKAGES)
    return [str(Path(spec.origin).parent) for spec in specs if spec and spec.origin]
