"""The commands on jobs, as an operator runs them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from anyio import to_thread

from jangada.config import Settings
from jangada.testing import MASTER_KEY

type Jobs = Callable[..., Awaitable[Any]]


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is started finds the test's own servers."""
    monkeypatch.setenv("JANGADA_DATABASE__URL", settings.database.url.get_secret_value())
    monkeypatch.setenv("JANGADA_VALKEY__URL", settings.valkey.url.get_secret_value())
    monkeypatch.setenv("JANGADA_AUTH__MASTER_KEY", MASTER_KEY)


@pytest.fixture
def jobs(program: Callable[..., Any], environment: None) -> Jobs:
    """`jangada jobs …` against the test's own database."""

    async def run(*arguments: str) -> Any:  # noqa: ANN401 - as the program's fixture has it
        return await to_thread.run_sync(program, "jobs", *arguments)

    return run
