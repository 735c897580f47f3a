"""The least that receives a file: writes each chunk as it comes, flushes, answers.

Served with the same uvicorn settings as the API. `python bare_upload.py FOLDER` prints its port.
"""

import os
import socket
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvicorn

from jangada_api.protocol import BoundedProtocol


class Bare:
    """An ASGI application without anything between the server and the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        assert scope["type"] == "http"
        with (self.folder / uuid4().hex).open("wb", buffering=0) as file:
            is_more = True
            while is_more:
                message = await receive()
                file.write(message["body"])
                is_more = message["more_body"]
            os.fsync(file.fileno())
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def serve(folder: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        Bare(folder),
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
