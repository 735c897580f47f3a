import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import override

import pytest
from chaos.forkserver import ForkServer, fork_server
from xdist.remote import Producer  # type: ignore[import-untyped] # they forgot their py.typed
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped] # as above

pytest_plugins = ["jangada.testing", "jangada_worker.testing"]

SPREAD = 0.75
"""The part of the run over which tests that mostly wait are spread."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Starts programs within milliseconds; see the module."""
    with fork_server() as server:
        yield server


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of processes, which mostly wait, come evenly beside those that compute.

    So that there is always something to compute, and that what is left at the end is short. One
    process alone takes them as they are: it would start what a file shares for each of its tests.
    """
    if not hasattr(config, "workerinput"):
        return
    waiting = [item for item in items if item.get_closest_marker("e2e")]
    computing = [item for item in items if not item.get_closest_marker("e2e")]
    share = int(len(computing) * SPREAD) // max(len(waiting), 1)
    ordered: list[pytest.Item] = []
    for number, item in enumerate(waiting):
        ordered += [item, *computing[number * share : (number + 1) * share]]
    items[:] = [*ordered, *computing[len(waiting) * share :]]


def pytest_collection_finish() -> None:
    """What was collected stays: looking for garbage in it takes a tenth of the time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that tests have recorded (`record_property("figure", …)`)."""
    reports = [each for some in terminalreporter.stats.values() for each in some]
    found = [
        value
        for each in reports
        if isinstance(each, pytest.TestReport) and each.when == "call"
        for name, value in each.user_properties
        if name == "figure"
    ]
    if found:
        terminalreporter.section("figures")
        for value in found:
            terminalreporter.write_line(str(value))


class SharedFixtures(LoadScopeScheduling):  # type: ignore[misc] # as above
    """One test at a time to each process, but a file whose tests share a fixture to one of them.

    So a platform that several tests look at is started once.
    """

    @override
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if has_shared_fixture(self.config.rootpath / file) else nodeid


@cache
def has_shared_fixture(file: Path) -> bool:
    return 'scope="module"' in file.read_text("utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharedFixtures:
    return SharedFixtures(config, log)
