"""What runs in a process."""

from types import SimpleNamespace
from typing import Any

import pytest

from jangada.db import new_id
from jangada_worker.child.running import YOUNG, Running


def started(at: float) -> Any:  # noqa: ANN401 - what is asked of an execution here
    return SimpleNamespace(started=at, job=SimpleNamespace(job_id=new_id()))


def test_those_are_young_that_began_just_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    found = Running()
    assert found.young() == 0
    executions = [started(at) for at in (1.0, 1000 - 2 * YOUNG, 1000 - YOUNG / 2, 1000.0)]
    for execution in executions:
        found.add(execution)
    assert found.young() == 2
    found.remove(executions[-1])
    assert found.young() == 1
