"""Serves the API with one upload route, as a process that tests can measure and kill.

Settings come from the environment; when it accepts connections it says its port to the file whose
number is its argument.
"""

import os
import socket
import sys
from datetime import timedelta

import uvicorn
from fastapi import APIRouter

from jangada.config import load_settings
from jangada.files.uploads import receive
from jangada.telemetry import configure_logging
from jangada_api.app import create_app
from jangada_api.deps import PrincipalDep, RuntimeDep
from jangada_api.protocol import BoundedProtocol
from jangada_api.uploads import IncomingDep

LEASE = timedelta(seconds=1)
router = APIRouter()


@router.post("/test/uploads", status_code=201)
async def upload(
    runtime: RuntimeDep, who: PrincipalDep, incoming: IncomingDep
) -> dict[str, str | int | None]:
    async with (
        receive(runtime, who.tenant_id, incoming, lease=LEASE) as received,
        runtime.database.transaction(who.tenant_id) as session,
    ):
        file = await received.finish(session)
    return {
        "id": str(file.id),
        "name": file.name,
        "media_type": file.media_type,
        "size_bytes": file.size_bytes,
    }


class Announced(uvicorn.Server):
    """A server that says its port once it accepts connections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            os.write(int(sys.argv[1]), f"{listener.getsockname()[1]}\n".encode())


def serve() -> None:
    settings = load_settings()
    configure_logging(settings.telemetry, "jangada-api")
    app = create_app(settings)
    app.include_router(router)
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    Announced(config).run([socket.create_server(("127.0.0.1", 0))])


if __name__ == "__main__":
    serve()
