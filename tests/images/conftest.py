"""The images that `make images` built of these sources, unpacked once for each process of tests."""

import itertools
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import override
from urllib.parse import parse_qs, unquote, urlsplit

import containers
import images
import pytest
from archives import Archive
from containers import Unpacked
from images import Image

SHELLS = ("sh", "bash", "dash", "rbash")


type Find = Callable[[str], Image]


@pytest.fixture(scope="session")
def built() -> Find:
    """The image of a service. Looked for once: a test's environment says nothing of the cache."""
    known = {service: images.find(service) for service in images.SERVICES}

    def of(service: str) -> Image:
        if (found := known[service]) is None:
            pytest.skip(f"the image of {service} isn't built of these sources: see `make images`")
        return found

    return of


@pytest.fixture(scope="session", params=images.SERVICES)
def image(built: Find, request: pytest.FixtureRequest) -> Image:
    return built(request.param)


@pytest.fixture(scope="session")
def archive(image: Image) -> Archive:
    return Archive(image.archive)


@pytest.fixture(scope="session")
def unpacked(built: Find) -> Iterator[Callable[[str], Unpacked]]:
    """A service's image without the shells of its base, ready to run.

    It lies beside the archive, on disk: a gigabyte is too much for where temporary files go.
    """
    if reason := containers.missing():
        pytest.skip(reason)
    known: dict[str, Unpacked] = {}
    with ExitStack() as folders:

        def of(service: str) -> Unpacked:
            if service not in known:
                image = built(service)
                place = TemporaryDirectory(dir=image.folder.parent, prefix="unpacked-")
                folder = Path(folders.enter_context(place))
                known[service] = Unpacked(Archive(image.archive), folder)
                for shell in itertools.product(("bin", "usr/bin"), SHELLS):
                    (folder / "rootfs").joinpath(*shell).unlink(missing_ok=True)
            return known[service]

        yield of


class Relay(socketserver.ThreadingTCPServer):
    """Leads from a port of loopback to a Unix socket that a container can't open."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        super().__init__(("127.0.0.1", 0), Passage)


class Passage(socketserver.BaseRequestHandler):
    """One connection, both ways."""

    @override
    def handle(self) -> None:
        assert isinstance(self.server, Relay)
        with socket.socket(socket.AF_UNIX) as inner:
            inner.connect(self.server.path)
            back = threading.Thread(target=_carry, args=(inner, self.request))
            back.start()
            _carry(self.request, inner)
            back.join()


def _carry(reading: socket.socket, writing: socket.socket) -> None:
    try:
        while part := reading.recv(65536):
            writing.sendall(part)
        writing.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture
def reachable_database(database_url: str) -> Iterator[str]:
    """The URL of this test's database, by way of a port."""
    url = urlsplit(database_url)
    folder, port = (parse_qs(url.query)[name][0] for name in ("host", "port"))
    with Relay(Path(folder) / f".s.PGSQL.{port}") as relay:
        thread = threading.Thread(target=relay.serve_forever)
        thread.start()
        yield f"postgresql://{url.username}:{url.password}@127.0.0.1:{relay.server_address[1]}" + (
            unquote(url.path)
        )
        relay.shutdown()
        thread.join()
