import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import override

import pytest
from chaos.forkserver import ForkServer, fork_server
from xdist.remote import Producer  # type: ignore[import-untyped] # they forgot their py.typed
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped] # as above
from xdist.workermanage import WorkerController  # type: ignore[import-untyped] # as above

pytest_plugins = ["jangada.testing", "jangada_worker.testing"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Starts programs within milliseconds; see the module."""
    with fork_server() as server:
        yield server


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: the processes end together when what is left at the end is short."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


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

    So a platform that several tests look at is started once. The last process begins at the other
    end: long tests wait for half of their time, in which its short ones compute.
    """

    @override
    def _assign_work_unit(self, node: WorkerController) -> None:
        if self.workqueue and node is self.nodes[-1] is not self.nodes[0]:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)

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
