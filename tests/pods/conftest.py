"""One real node for all tests of a process, with our images and the stand-ins on it."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import images
import pytest
import tools
from node import needs, standins
from node.node import Node
from node.release import REGISTRY, VERSIONS


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
