"""One process that this one starts, and that never outlives it.

Each process is started and awaited by a thread of its own. The kernel's death signal belongs to the
thread that started the process, not to its process: started from a pool's thread, a server would be
stopped when the pool lets that thread go.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from jangada.local import launch
from jangada.local.errors import ServerFailed

LAUNCH = Path(launch.__file__)

type Escalation = Sequence[tuple[signal.Signals, float]]
"""Signals to end a process with, each with the seconds that it has to heed it."""


@dataclass(frozen=True)
class Credentials:
    """Whom a program runs as: `own`, `namespace` (seems to be `uid`) or `account` (is `uid`)."""

    kind: str = "own"
    uid: int = 0
    gid: int = 0


OWN = Credentials()


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to run: a program with arguments, and the circumstances in which it runs."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    folder: Path | None = None
    record: Path | None = None
    death_signal: signal.Signals = signal.SIGTERM
    credentials: Credentials = OWN

    def launched(self) -> list[str]:
        """The command line that starts `launch.py`, which becomes the program."""
        spec = {
            "parent": os.getpid(),
            "signal": int(self.death_signal),
            "record": str(self.record) if self.record else None,
            "folder": str(self.folder) if self.folder else None,
            "credentials": self.credentials.kind,
            "uid": self.credentials.uid,
            "gid": self.credentials.gid,
        }
        return [sys.executable, "-I", "-S", str(LAUNCH), json.dumps(spec), *self.argv]


class Child:
    """A running process, in a session of its own: a Ctrl-C on the terminal reaches only us.

    When it has ended, whatever is left of its process group is killed.
    """

    def __init__(
        self, command: Command, *, output: IO[bytes] | int, pass_fds: Sequence[int] = ()
    ) -> None:
        self._command = command
        self._output = output
        self._pass_fds = tuple(pass_fds)
        started: Future[subprocess.Popen[bytes]] = Future()
        self.ended: Future[int] = Future()
        self._reaping = threading.Lock()
        # It cannot be cancelled, so whoever awaits it may be.
        self.ended.set_running_or_notify_cancel()
        name = f"runs {Path(command.argv[0]).name}"
        threading.Thread(target=self._run, args=(started,), name=name, daemon=True).start()
        self.popen = started.result()

    def _run(self, started: Future[subprocess.Popen[bytes]]) -> None:
        try:
            process = self._start()
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(process)
        # Not reaped yet, it keeps its id, and so its group's, from being given to others.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._reaping:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        self.ended.set_result(code)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - the command is ours
            self._command.launched(),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=dict(self._command.environ),
            pass_fds=self._pass_fds,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def is_running(self) -> bool:
        return not self.ended.done()

    def send(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended.

        Not by `send_signal`, which would reap what has just ended before our thread has seen it.
        """
        with self._reaping:
            if self.popen.returncode is None:
                os.kill(self.pid, number)

    def stop(self, escalation: Escalation) -> None:
        """End it, more and more firmly; returns when it is gone."""
        for number, seconds in escalation:
            self.send(number)
            with suppress(TimeoutError):
                self.ended.result(seconds)
                return
        self.send(signal.SIGKILL)
        self.ended.result()


KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")


def plain_environ() -> dict[str, str]:
    """What a server needs of our environment: no secret of ours, no `PGDATA`, no `LC_ALL`."""
    return {name: os.environ[name] for name in KEPT if name in os.environ}


RUN_TIMEOUT = 300.0
"""Seconds that a program may take which is run to its end, on a slow disk."""


def run(command: Command) -> None:
    """Run a program to its end. Raises `ServerFailed` with what it said when it fails."""
    name = Path(command.argv[0]).name
    try:
        answer = subprocess.run(  # noqa: S603 - the command is ours
            command.launched(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(command.environ),
            text=True,
            errors="replace",
            check=False,
            start_new_session=True,
            timeout=RUN_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerFailed(f"{name} did not end within {RUN_TIMEOUT:.0f} s.") from error
    if answer.returncode:
        raise ServerFailed(f"{name} failed:\n{answer.stdout.strip()}")


def read_record(record: Path) -> int | None:
    """The process that `launch.py` recorded, if that very process still runs."""
    try:
        noted = json.loads(record.read_text(encoding="utf-8"))
        pid = int(noted["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if launch.identity(pid) == noted.get("identity") is not None else None


def stop_recorded(record: Path, escalation: Escalation) -> bool:
    """End what an earlier, killed runner left behind; True when there was something."""
    pid = read_record(record)
    if pid is not None:
        with suppress(psutil.NoSuchProcess):  # it has ended just now
            _stop_foreign(psutil.Process(pid), escalation, lambda: read_record(record) is None)
    record.unlink(missing_ok=True)
    return pid is not None


def _stop_foreign(
    process: psutil.Process, escalation: Escalation, gone: Callable[[], bool]
) -> None:
    """End a process that is not our child; psutil compares its start time before each signal."""
    for number, seconds in (*escalation, (signal.SIGKILL, 10.0)):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        if wait_until(gone, seconds):
            return
    raise ServerFailed(f"Process {process.pid} of an earlier run cannot be ended.")


def processes_in(folder: Path) -> Iterator[psutil.Process]:
    """Processes that work in this very folder, such as the rest of a killed PostgreSQL."""
    place = str(folder.resolve())
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == place:
                yield process


def end_processes_in(folder: Path, *, grace: float) -> None:
    """Wait until nothing works in the folder any more, and kill what does not go by itself."""
    if wait_until(lambda: not any(processes_in(folder)), grace):
        return
    for process in processes_in(folder):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if not wait_until(lambda: not any(processes_in(folder)), 10.0):
        raise ServerFailed(f"Processes of an earlier run still work in {folder}.")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition that no event announces; False when it does not come true in time."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return True
