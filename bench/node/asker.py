"""A user's program elsewhere: `python -m node.asker URL`, a token in the first line of its input.

It asks for the first contacts at a constant rate, whatever the answers take (an open model), until
its input ends, and prints a line of JSON for each answer. Each second request is made over a
connection of its own. It goes before all that it asks, since its machine would be another one: what
it measures is the platform, and not how long it waits for a processor itself.
"""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import httpx

from node.forward import go_first

PATH: Final = "/v1/contacts?limit=3"
PATIENCE: Final = 30.0
RATE: Final = 5.0
"""Requests a second."""
UNANSWERED: Final = "Server disconnected without sending a response"
"""What httpx says of a kept connection that was closed before anything was done with a request."""


class Asker:
    """Who keeps asking at a URL."""

    def __init__(self, url: str, token: str) -> None:
        self._options: dict[str, Any] = {
            "base_url": url,
            "headers": {"Authorization": f"Bearer {token}"},
            "timeout": PATIENCE,
            "trust_env": False,
            "verify": ssl.create_default_context(),  # made once: each new connection would wait
        }

    async def ask(self, over: asyncio.Event) -> None:
        began, number = time.monotonic(), 0
        async with self._client() as kept, asyncio.TaskGroup() as tasks:
            while not over.is_set():
                tasks.create_task(self._one(kept if number % 2 else None))
                number += 1
                await asyncio.sleep(max(0, began + number / RATE - time.monotonic()))

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._options)

    async def _one(self, kept: httpx.AsyncClient | None) -> None:
        at, trouble, resent = time.monotonic(), "", False
        try:
            if kept is not None:
                answer, resent = await self._ask_kept(kept)
            else:
                async with self._client() as own:
                    answer = await own.get(PATH)
            trouble = "" if answer.is_success else f"{answer.status_code} {answer.text}"
        except httpx.HTTPError as error:
            trouble = f"{'kept' if kept else 'new'} connection: {error!r}"
        seconds = time.monotonic() - at
        said = {"at": at, "seconds": seconds, "trouble": trouble, "was_resent": resent}
        print(json.dumps(said), flush=True)

    async def _ask_kept(self, kept: httpx.AsyncClient) -> tuple[httpx.Response, bool]:
        """And whether it was sent again: a connection may be closed just as it is used once more.

        A client asks anew then (RFC 9112, 9.3.1). An answer that breaks off is another matter.
        """
        try:
            return await kept.get(PATH), False
        except httpx.RemoteProtocolError as error:
            if UNANSWERED not in str(error):
                raise
            return await kept.get(PATH), True


async def main(arguments: Sequence[str]) -> None:
    token = sys.stdin.readline().strip()
    over, loop = asyncio.Event(), asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(sys.stdin.fileno())
        over.set()

    go_first()
    loop.add_reader(sys.stdin.fileno(), end)
    await Asker(arguments[0], token).ask(over)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
