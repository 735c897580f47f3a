"""One control plane for all tests of a process, one namespace and one queue for each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import tools
from chaos.forkserver import ForkServer
from cluster.bed import Bed
from cluster.field import Field, field
from cluster.kubelet import Kubelet
from cluster.operators import install
from cluster.workers import LedgerWitness

from jangada.local.valkey import EmbeddedValkey


@pytest.fixture(scope="session")
def programs() -> Path:
    if (found := tools.find(tools.CONTROL)) is None:
        pytest.skip("the control plane isn't built: `make e2e-smoke` does it")
    return found


@pytest.fixture(scope="session")
def bed(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with Bed(tmp_path_factory.mktemp("bed"), programs) as bed:
        yield bed


@pytest.fixture(scope="session")
def kubelet(
    bed: Bed, forks: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubelet]:
    client, folder = bed.api(bed.folder / "kubelet.kubeconfig"), tmp_path_factory.mktemp("kubelet")
    with Kubelet(client, folder, launch=forks.start, witness=LedgerWitness()) as kubelet:
        yield kubelet


@pytest.fixture(scope="session")
def queue_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey for the workers."""
    with EmbeddedValkey(tmp_path_factory.mktemp("queue") / "valkey") as valkey:
        yield valkey.url


@pytest.fixture
async def place(
    bed: Bed, kubelet: Kubelet, queue_server: str, tmp_path: Path
) -> AsyncIterator[Field]:
    """A namespace, a queue, and a check that nothing of the cluster has died."""
    async with field(bed, kubelet, queue_server, tmp_path) as made:
        yield made
    bed.check()
    assert list(kubelet.troubles) == []


@pytest.fixture(scope="session")
def installed(bed: Bed, programs: Path) -> Bed:
    """A bed that knows WorkerPools, and what an operator may do."""
    install(bed, programs)
    return bed
