"""Programs that start within milliseconds: a process has imported what they need, and forks.

For tests, which start more than a hundred: each would spend a second on its imports. A fork is what
`python -m …` would have become, by environment, arguments, folder, output, session and death
signal; what it imports from folders of its own it imports itself. A program that cannot be had so,
because it needs another interpreter or is told something before Python starts, is really started.

The server has no threads. For each program it forks a keeper, which forks the program, waits for it
and tells its end: what the thread of a `Child` is in a test. All die with the test's process.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import import_module, invalidate_caches
from pathlib import Path
from runpy import run_module
from tempfile import TemporaryFile
from typing import Final

from jangada.local.launch import follow
from jangada.local.process import OWN, RUN_TIMEOUT, Child, Command

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
FOLDERS: Final = "PYTHONPATH"
TOLD_BEFORE: Final = ("LD_", "PYTHON")
"""How variables begin that say something to the linker or to Python as it starts."""
LOADED: Final = (
    "jangada.accounts.commands",
    "jangada.cli",
    "jangada.client.commands",
    "jangada_api.commands",
    "jangada_api.server",
    "jangada_queue.taskiq",
    "jangada_worker.child.program",
    "jangada_worker.commands",
    "taskiq.cli.worker.cmd",
    "taskiq.middlewares",
    "taskiq.schedule_sources",
    "taskiq_redis",
)
MOST_FILES: Final = 8
ABOVE_ALL: Final = 500
"""Where received files are put first, out of the way of the numbers that they are to have."""


type Launch = Callable[[Command, int, Sequence[int]], Child | Forked]


def start(command: Command, output: int, pass_fds: Sequence[int]) -> Child:
    """Start a program really, as the bench does."""
    return Child(command, output=output, pass_fds=pass_fds)


class Forked:
    """A program that was forked; what harness and raft need of a `Child`."""

    def __init__(self, link: socket.socket) -> None:
        self._news = link.makefile("rb")
        self.pid = int(self._news.readline())
        self.ended: Future[int] = Future()
        self.ended.set_running_or_notify_cancel()
        threading.Thread(target=self._hear, name=f"hears of {self.pid}", daemon=True).start()

    def _hear(self) -> None:
        """A keeper that says nothing was killed, and the kernel has killed the program, too."""
        with self._news:
            self.ended.set_result(int(self._news.readline() or -signal.SIGKILL))

    @property
    def is_running(self) -> bool:
        return not self.ended.done()

    def send(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended."""
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class ForkServer:
    """A test's side."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def start(self, command: Command, output: int, pass_fds: Sequence[int]) -> Child | Forked:
        """Fork a program, or start it really where a fork would be another one."""
        if not is_forkable(command):
            return start(command, output, pass_fds)
        passed = {number: number for number in pass_fds}
        return self._fork(command, {STDOUT: output, STDERR: output, **passed})

    def run(self, command: Command, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program to its end; so little is read from a pipe that it fits into one."""
        assert is_forkable(command), command
        reading, writing = os.pipe()
        with os.fdopen(writing, "w") as pipe:
            pipe.write(stdin)
        with os.fdopen(reading) as given, TemporaryFile("w+") as said, TemporaryFile("w+") as err:
            streams = {STDIN: given, STDOUT: said, STDERR: err}
            forked = self._fork(command, {n: file.fileno() for n, file in streams.items()})
            try:
                code = forked.ended.result(RUN_TIMEOUT)
            except TimeoutError:
                forked.send(signal.SIGKILL)
                raise
            said.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command.argv, code, said.read(), err.read())

    def _fork(self, command: Command, files: Mapping[int, int]) -> Forked:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"!"], [theirs.fileno(), *files.values()])
        order = Order(
            argv=list(command.argv[2:]),
            environ=dict(command.environ),
            folder=str(command.folder or Path.cwd()),
            death_signal=command.death_signal,
            files=list(files),
        )
        with ours:
            ours.sendall(json.dumps(asdict(order)).encode() + b"\n")
            return Forked(ours)


def is_forkable(command: Command) -> bool:
    """Whether it is a module for this Python, which begins as the server began."""
    is_module = list(command.argv[:2]) == [sys.executable, "-m"]
    is_plain = command.credentials == OWN and command.record is None
    return is_module and is_plain and told_before(command.environ) == told_before(os.environ)


def told_before(environ: Mapping[str, str]) -> dict[str, str]:
    """To linker and Python an empty variable is as one that isn't set."""
    return {
        name: value
        for name, value in environ.items()
        if value and name.startswith(TOLD_BEFORE) and name != FOLDERS
    }


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    """A server for this process, which may have threads."""
    ours, theirs = socket.socketpair()
    number = str(theirs.fileno())
    bench = Path(__file__).parent.parent
    command = Command(
        argv=[sys.executable, "-m", "chaos.forkserver", number],
        environ={**os.environ, FOLDERS: str(bench)},
        death_signal=signal.SIGKILL,
    )
    with theirs:
        server = Child(command, output=STDERR, pass_fds=[theirs.fileno()])
    try:
        yield ForkServer(ours)
    finally:
        ours.close()
        server.ended.result()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to become; the files come beside it, in this order."""

    argv: list[str]
    environ: dict[str, str]
    folder: str
    death_signal: int
    files: list[int]


def serve(control: socket.socket) -> Order | None:
    """Fork until the test has gone; answers an order in the process that is to follow it."""
    server = os.getpid()
    while True:
        received, files, _, _ = socket.recv_fds(control, 1, MOST_FILES)
        if not received:
            reap()
            return None
        if os.fork() == 0:
            control.close()
            follow(server, signal.SIGKILL)
            return keep(socket.socket(fileno=files[0]), files[1:])
        for file in files:
            os.close(file)
        reap()


def reap() -> None:
    """Forget the keepers that have ended; their time on the processor is then known as ours."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def keep(link: socket.socket, files: list[int]) -> Order | None:
    """Fork the program, wait for it and tell; answers the order in the program itself."""
    keeper = os.getpid()
    with link.makefile("rb") as orders:
        order = Order(**json.loads(orders.readline()))
    os.setsid()
    if (program := os.fork()) == 0:
        link.close()
        become(order, files, keeper)
        return order
    for file in (*files, STDIN, STDOUT, STDERR):
        os.close(file)
    link.sendall(b"%d\n" % program)
    link.sendall(b"%d\n" % ended(program))
    os._exit(0)


def ended(program: int) -> int:
    """Its exit code, once it and what is left of its group are gone."""
    os.waitid(os.P_PID, program, os.WEXITED | os.WNOWAIT)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(program, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])


def become(order: Order, files: list[int], keeper: int) -> None:
    """Have everything as the program would have been given it."""
    os.setsid()
    place(files, order.files)
    os.umask(0o077)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environ)
    folders = order.environ.get(FOLDERS, "").split(os.pathsep)
    sys.path[:2] = [order.folder, *filter(None, folders)]
    invalidate_caches()
    follow(keeper, order.death_signal)


def place(files: list[int], numbers: list[int]) -> None:
    """Give the files the numbers that the program knows them by."""
    for place, file in enumerate(files, ABOVE_ALL):
        os.dup2(file, place, inheritable=False)
    for file in files:
        os.close(file)
    for place, number in enumerate(numbers, ABOVE_ALL):
        os.dup2(place, number)
    os.closerange(ABOVE_ALL, ABOVE_ALL + MOST_FILES)


def load() -> None:
    gc.disable()
    for module in LOADED:
        import_module(module)
    import_module("jangada_worker.discovery").import_platform()
    gc.freeze()
    gc.enable()
    assert threading.active_count() == 1, "a fork has none of them"


def main(control: socket.socket) -> None:
    load()
    with control:
        order = serve(control)
    if order is not None:
        module, *arguments = order.argv
        sys.argv[:] = [module, *arguments]
        run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
