"""One process and whoever signals it, however close together signal and end are."""

import os
import signal
from concurrent.futures import Future
from pathlib import Path

import pytest

from jangada.local.process import Child, Command, plain_environ

PATIENCE = 60
TIMES = 40


def sleeper(folder: Path) -> Command:
    return Command(argv=["/bin/sleep", "3600"], environ=plain_environ(), folder=folder)


def ended(child: Child) -> int:
    future: Future[int] = child.ended
    return future.result(PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_signalled_as_it_ends_is_seen_to_end(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Whoever signals it must not reap it: its own thread would wait for a process of nobody."""
    for _ in range(TIMES):
        child = Child(sleeper(tmp_path), output=2)
        while child.is_running:
            child.send(number)
        assert ended(child) == -number


def test_a_process_that_has_ended_is_signalled_in_vain(tmp_path: Path) -> None:
    child = Child(sleeper(tmp_path), output=2)
    os.kill(child.pid, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    child.send(signal.SIGTERM)
    child.stop(())
    assert not child.is_running
