"""A contestant's running processes, and the calls of `stage` in its environment."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from queues.adapter import Program
from queues.contestants import Contestant
from queues.ledger import PATH, Ledger
from queues.servers import Servers, proportional_memory

PATIENCE = 300.0
"""Seconds that one call of `stage` may take."""

END = 20.0
"""Seconds that a program may take to end."""

TOLD_LINES = 6


class Void(Exception):
    """A figure that counts for nothing: jobs were lost or ran twice, or a program ended."""


class Crew:
    """The processes of one contestant, with the ledger that they write."""

    def __init__(self, servers: Servers, contestant: Contestant, name: str = "") -> None:
        self.contestant = contestant
        label = f"{contestant.name}{name}"
        self.ledger = Ledger(servers.folder / f"{label}.ledger")
        self._log = servers.folder / f"{label}.log"
        self._environment = {**servers.environment(contestant), PATH: str(self.ledger.path)}
        self._folder = servers.folder
        self._children: list[tuple[subprocess.Popen[bytes], Program]] = []

    def stage(self, verb: str, **options: object) -> Any:  # noqa: ANN401 - any JSON
        """Call the adapter. Raises `Void` with what it said when it fails."""
        given = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        try:
            done = self._call(verb, given)
        except subprocess.TimeoutExpired:
            raise Void(f"{verb} took longer than {PATIENCE:.0f} s") from None
        if done.returncode:
            raise Void(f"{verb} failed: {_end_of(done.stderr)}")
        return json.loads(done.stdout.splitlines()[-1])

    def _call(self, verb: str, given: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own program
            [*self._python(), "queues.stage", self.contestant.adapter, verb, *given],
            env=self._environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def fill(self, kind: str, indexes: range) -> dict[str, float]:
        """Enqueue in bulk; answers when that began and ended."""
        spans: dict[str, float] = self.stage(
            "fill", kind=kind, first=indexes.start, count=len(indexes)
        )
        return spans

    def _python(self) -> list[str]:
        return [str(self.contestant.python), "-m"]

    def start(self, *, workers_only: bool = False) -> None:
        programs = [Program(**found) for found in self.stage("programs")]
        for program in programs:
            if program.is_worker or not workers_only:
                self._children.append((self._start(program), program))

    def _start(self, program: Program) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own program
                program.command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises `Void` when a program has ended by itself."""
        for child, program in self._children:
            if child.poll() is not None:
                raise Void(f"{Path(program.command[0]).name} ended: {self.said()}")

    def said(self) -> str:
        return _end_of(self._log.read_text(errors="replace")) if self._log.exists() else ""

    def processes(self, *, workers_only: bool = False) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for child, program in self._children:
            if program.is_worker or not workers_only:
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(child.pid)
                    found += [process, *process.children(recursive=True)]
        return found

    def resident_memory(self) -> int:
        """The sum of all processes' RSS, which counts shared pages once for each, in bytes."""
        return sum(process.memory_info().rss for process in self.processes())

    def proportional_memory(self) -> int:
        return proportional_memory(self.processes())

    def kill_workers(self) -> None:
        """As a node that loses power: parents and children at once."""
        _kill(self.processes(workers_only=True))

    def stop(self) -> None:
        """End all programs: kindly, then not."""
        family = self.processes()
        for child, _ in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        psutil.wait_procs(family, timeout=END)
        _kill([*family, *self.processes()])
        for child, _ in self._children:
            child.wait(END)
        self._children.clear()


def _end_of(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TOLD_LINES:])


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if process.is_running():
                os.kill(process.pid, signal.SIGKILL)
