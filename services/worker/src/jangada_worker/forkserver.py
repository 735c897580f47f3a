"""Where worker processes come from: a process that has loaded what they need, and forks.

Loading takes a second or more; a fork takes milliseconds. So a process that a job has killed is
replaced at once, and what was loaded is in memory once, however many processes there are.

The server is forked before its owner has threads or an event loop, has none itself and opens no
connection. It lives and dies with its owner, and its children with it. (The fork server of
`multiprocessing` lives for as long as any of its children.) The code of an application is loaded
after the fork: what it starts as it is imported is nobody else's.
"""

import asyncio
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from jangada_worker.lifeline import die_with, name_process

MOST_BYTES: Final = 65536
ENDS_IN_ORDER: Final = (signal.SIGTERM, signal.SIGINT)
"""Sent to a whole group of processes they would end the server before its children."""

type Run = Callable[[socket.socket, str], None]
"""What a child does with its end of the link, and the pod's name."""


class ForkServerLost(Exception):
    """Somebody killed the fork server, and the kernel its children: start the worker anew."""


class Spawn(msgspec.Struct, tag=True, frozen=True):
    """To the server: fork; the child's end of its link comes with this."""

    pod: str


class Kill(msgspec.Struct, tag=True, frozen=True):
    """To the server, who alone knows whether the id is still that of its child."""

    pid: int


class Spawned(msgspec.Struct, tag=True, frozen=True):
    """From the server: the child is there."""

    pid: int


class NotSpawned(msgspec.Struct, tag=True, frozen=True):
    """From the server: the kernel refused."""

    errno: int


class Ended(msgspec.Struct, tag=True, frozen=True):
    """From the server: a child has ended, with an exit code or minus a signal's number."""

    pid: int
    code: int


type Order = Spawn | Kill
type News = Spawned | NotSpawned | Ended


@contextmanager
def fork_server(load: Callable[[], Run]) -> Iterator["ForkServer"]:
    """Fork a server that has called `load`; it is gone at the end of the block.

    For a process that has no threads yet.
    """
    ours, theirs = socket.socketpair()
    owner = os.getpid()
    _flush()
    if (pid := os.fork()) == 0:
        _exit_after(lambda: _Server(theirs, load, owner).serve())
    theirs.close()
    ours.setblocking(False)
    try:
        yield ForkServer(ours)
    finally:
        ours.close()
        os.waitpid(pid, 0)


class Forked:
    """A child of the fork server."""

    def __init__(self, server: "ForkServer", pid: int, ended: asyncio.Future[int]) -> None:
        self.pid = pid
        self._server = server
        self._ended = ended

    async def wait(self) -> int:
        """Its exit code, or minus the number of the signal that ended it, once it has ended."""
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        if not self._ended.done():
            self._server.kill(self.pid)


class ForkServer:
    """The owner's side; `spawn` is called by one event loop."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lines = _Lines()
        self._decoder = msgspec.json.Decoder(News)
        self._one_at_a_time = asyncio.Lock()
        self._asked: asyncio.Future[Forked] | None = None
        self._running: dict[int, asyncio.Future[int]] = {}
        self._is_watched = False
        self._is_lost = False

    async def spawn(self, end: socket.socket, pod: str) -> Forked:
        """Fork a child, who gets this end. Raises `OSError`, or `ForkServerLost` for good."""
        async with self._one_at_a_time:
            self._watch()
            if self._is_lost:
                raise ForkServerLost
            self._asked = asyncio.get_running_loop().create_future()
            self._send(Spawn(pod), [end.fileno()])
            return await self._asked

    def kill(self, pid: int) -> None:
        with suppress(OSError):  # the server is gone, and so is the child
            self._send(Kill(pid))

    def _send(self, order: Order, files: Sequence[int] = ()) -> None:
        """So little that it always fits into the socket."""
        socket.send_fds(self._control, [_line(order)], files)

    def _watch(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            asyncio.get_running_loop().add_reader(self._control, self._read)

    def _read(self) -> None:
        try:
            received = self._control.recv(MOST_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            received = b""
        for line in self._lines.add(received):
            self._hear(self._decoder.decode(line))
        if not received:
            self._lose()

    def _hear(self, news: News) -> None:
        match news:
            case Spawned():
                ended = asyncio.get_running_loop().create_future()
                self._running[news.pid] = ended
                self._answered().set_result(Forked(self, news.pid, ended))
            case NotSpawned():
                self._answered().set_exception(OSError(news.errno, os.strerror(news.errno)))
            case Ended():
                self._running.pop(news.pid).set_result(news.code)

    def _answered(self) -> asyncio.Future[Forked]:
        asked, self._asked = self._asked, None
        assert asked is not None, "an answer follows a question"  # noqa: S101 - a fault of ours
        return asked if not asked.cancelled() else asyncio.get_running_loop().create_future()

    def _lose(self) -> None:
        """The kernel has killed the children with their parent."""
        asyncio.get_running_loop().remove_reader(self._control)
        self._is_lost = True
        if self._asked is not None:
            self._answered().set_exception(ForkServerLost())
        for ended in self._running.values():
            ended.set_result(-signal.SIGKILL)
        self._running.clear()


class _Server:
    """The server's side: no threads, no event loop."""

    def __init__(self, control: socket.socket, load: Callable[[], Run], owner: int) -> None:
        self._control = control
        self._load = load
        self._owner = owner
        self._pid = os.getpid()
        self._lines = _Lines()
        self._decoder = msgspec.json.Decoder(Order)
        self._children: set[int] = set()

    def serve(self) -> None:
        """Fork until the owner closes its end."""
        _close_all_but(self._control)
        die_with(self._owner)
        name_process("jangada-forks")
        for number in ENDS_IN_ORDER:
            signal.signal(number, signal.SIG_IGN)
        self._run = self._load()
        with _child_ended() as ended, selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if ended in ready:
                    ended.recv(MOST_BYTES)
                    self._reap()
                if self._control in ready and not self._obey():
                    return

    def _obey(self) -> bool:
        """Do what the owner says; answers whether it is still there."""
        received, files, _, _ = socket.recv_fds(self._control, MOST_BYTES, 1)
        for line in self._lines.add(received):
            match self._decoder.decode(line):
                case Spawn(pod):
                    self._spawn(files[0], pod)
                case Kill(pid) if pid in self._children:
                    os.kill(pid, signal.SIGKILL)
        return bool(received)

    def _spawn(self, file: int, pod: str) -> None:
        with socket.socket(fileno=file) as end:
            try:
                pid = os.fork()
            except OSError as error:
                self._tell(NotSpawned(error.errno or 0))
                return
            if pid == 0:
                _exit_after(lambda: self._be_child(end, pod))
        self._children.add(pid)
        self._tell(Spawned(pid))

    def _be_child(self, end: socket.socket, pod: str) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _close_all_but(end)
        die_with(self._pid)
        name_process("jangada-child")
        self._run(end, pod)

    def _reap(self) -> None:
        for child in list(self._children):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                self._children.remove(pid)
                self._tell(Ended(pid, os.waitstatus_to_exitcode(status)))

    def _tell(self, news: News) -> None:
        self._control.sendall(_line(news))


class _Lines:
    """What comes from a socket, by the line."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, received: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + received).split(b"\n")
        return lines


def _line(message: Order | News) -> bytes:
    return msgspec.json.encode(message) + b"\n"


@contextmanager
def _child_ended() -> Iterator[socket.socket]:
    """A socket that has something to read when a child may have ended."""
    reading, writing = socket.socketpair()
    with reading, writing:
        writing.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        yield reading


def _close_all_but(kept: socket.socket) -> None:
    """Let go of what was inherited: a pipe that others keep open tells nobody of its end."""
    os.closerange(sys.stderr.fileno() + 1, kept.fileno())
    os.closerange(kept.fileno() + 1, os.sysconf("SC_OPEN_MAX"))


def _exit_after(work: Callable[[], None]) -> None:
    """End a forked process after its work, without what its parent does at its own end."""
    code = 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
