"""One real node for all tests of a process, with our images, the stand-ins and a release on it."""

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import images
import pytest
import tools
from node import needs, standins, traffic
from node.node import Node
from node.release import REGISTRY, VALUES, VERSIONS, Release, release


@pytest.fixture(scope="session")
def machine() -> None:
    """Skip where a node can't be had; `make e2e-pods` says so before all else, too."""
    if missing := needs.missing():
        pytest.skip(f"NO REAL PODS: a node takes {'; '.join(missing)}")


def built(kind: tools.ToolSet) -> Path:
    if (found := tools.find(kind)) is None:
        pytest.skip(f"NO REAL PODS: `make e2e-pods` builds what is missing, {kind.name}")
    return found


@pytest.fixture(scope="session")
def archives() -> Mapping[str, Path]:
    """Archives by the names of their images."""
    ours = {service: images.find(service) for service in images.SERVICES}
    theirs = standins.find()
    if theirs is None or None in ours.values():
        pytest.skip("NO REAL PODS: `make e2e-pods` builds the images, which are missing")
    return {**theirs, **{name: image.archive for name, image in ours.items() if image is not None}}


@pytest.fixture(scope="session")
def node(machine: None, archives: Mapping[str, Path]) -> Iterator[Node]:
    """On a disk: the files of containers are too many for memory."""
    programs, binaries = built(tools.CONTROL), built(tools.NODE)
    with (
        tempfile.TemporaryDirectory(prefix="jangada-node-", dir="/var/tmp") as folder,
        Node(Path(folder) / "bed", programs, binaries) as node,
    ):
        for name, archive in archives.items():
            tags = [f"{REGISTRY}/{name}:{version}" for version in VERSIONS]
            node.load(archive, *(tags if name in images.SERVICES else []))
        yield node
        node.check()


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a figure also where pytest keeps what is printed."""
    reporter: Any = request.config.pluginmanager.get_plugin("terminalreporter")

    def line(text: str) -> None:
        reporter.write_line(f"\n*** {text}")

    return line


@pytest.fixture(scope="session")
def shop(node: Node, say: Callable[[str], None]) -> Iterator[Release]:
    helm, kubectl = built(tools.CHART) / "helm", built(tools.CONTROL) / "kubectl"
    namespace = f"shop-{secrets.token_hex(3)}"
    with release(node, helm, kubectl, VALUES, namespace=namespace) as made:
        seconds = made.apply(VERSIONS[0], first=True)
        say(f"from `helm install` until all is ready: {seconds:.0f} s")
        yield made


@pytest.fixture
def url(shop: Release) -> Iterator[str]:
    with shop.reach() as url:
        yield url


@pytest.fixture
def ana(url: str) -> Iterator[httpx.Client]:
    with closing(traffic.sign_in(url)) as client:
        yield client


@pytest.fixture
def seen(url: str, ana: httpx.Client) -> traffic.Traffic:
    """Requests of hers, which begin with `at_rate`."""
    return traffic.Traffic(url, traffic.token(ana))
