"""Uses the fork server as `jangada worker` does, in a process without threads; answers as JSON.

The tests cannot fork themselves: the processes that they run in have threads.
"""

import asyncio
import json
import os
import random
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import psutil

from jangada.db import new_id
from jangada_worker.forkserver import Forked, ForkServer, ForkServerLost, Run, fork_server

type Scene = Callable[[ForkServer], Coroutine[Any, Any, object]]


async def forked(server: ForkServer) -> tuple[Forked, socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        return await server.spawn(theirs, "pod"), ours


async def said(ours: socket.socket) -> str:
    with ours:
        reader, writer = await asyncio.open_connection(sock=ours)
        text = (await reader.read()).decode()
        writer.close()
        return text


def obey(end: socket.socket, pod: str) -> None:
    """What a child does: what the first word on its link says."""
    match end.recv(100).decode():
        case "name":
            end.sendall(f"{pod} {psutil.Process().name()}".encode())
        case "exit":
            sys.exit(3)
        case "raise":
            raise RuntimeError("on purpose")
        case "draw":
            end.sendall(f"{new_id()} {random.random()} {secrets.token_hex()}".encode())  # noqa: S311 - that's it
        case "files":
            end.sendall(str(psutil.Process().num_fds()).encode())
        case "signals":
            told = [str(signal.getsignal(each)) for each in (signal.SIGTERM, signal.SIGCHLD)]
            end.sendall(" ".join(told).encode())


def load() -> Run:
    return obey


def refusing() -> Run:
    def refuse() -> int:
        raise OSError(11, "no more processes")

    os.fork = refuse
    return obey


async def word(server: ForkServer, word: str) -> tuple[str, int]:
    child, ours = await forked(server)
    ours.sendall(word.encode())
    return await said(ours), await child.wait()


async def words(server: ForkServer) -> object:
    return [await word(server, each) for each in ("name", "exit", "raise", "signals")]


async def draws(server: ForkServer) -> object:
    return [(await word(server, "draw"))[0].split() for _ in range(3)]


async def files(server: ForkServer) -> object:
    reading, writing = os.pipe()
    try:
        return int((await word(server, "files"))[0])
    finally:
        os.close(reading)
        os.close(writing)


async def kills(server: ForkServer) -> object:
    (first, a), (second, b) = await forked(server), await forked(server)
    first.kill()
    code = await first.wait()
    first.kill()
    b.sendall(b"name")
    with a:
        return [code, await said(b), await second.wait()]


async def refused(server: ForkServer) -> object:
    try:
        await forked(server)
    except OSError as error:
        return error.errno
    return None


async def lost(server: ForkServer) -> object:
    child, ours = await forked(server)
    with ours:
        os.kill(psutil.Process(child.pid).ppid(), signal.SIGKILL)
        code = await child.wait()
        try:
            await forked(server)
        except ForkServerLost:
            return [code, ours.recv(1).decode()]
    return None


SCENES: dict[str, tuple[Callable[[], Run], Scene]] = {
    "words": (load, words),
    "draws": (load, draws),
    "files": (load, files),
    "kills": (load, kills),
    "refused": (refusing, refused),
    "lost": (load, lost),
}


if __name__ == "__main__":
    loading, scene = SCENES[sys.argv[1]]
    with fork_server(loading) as server:
        sys.stdout.write(json.dumps(asyncio.run(scene(server))))
