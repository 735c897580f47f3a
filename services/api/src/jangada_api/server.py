"""Serving: the public application and the management port in one process, on one event loop.

- The sockets are ours: bound before anything else, so that a port in use is said at once.
- A process has a bounded number of connections on each port, and may open the files for them.
- The management port answers while the API starts and until it has stopped.
- SIGTERM or Ctrl-C: not ready from that moment, streams end, open requests may finish within the
  configured time; a second signal ends them.
"""

import asyncio
import contextlib
import math
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, cast, override

import uvicorn
import uvloop
from starlette.types import ASGIApp

from jangada import announcement
from jangada.config import Settings
from jangada.errors import Conflict
from jangada.telemetry import get_logger, tracing
from jangada_api.app import create_app, prepare
from jangada_api.management import create_management
from jangada_api.protocol import BoundedProtocol, ConnectionLimit

log = get_logger(__name__)

SERVICE: Final = "jangada-api"
KEEP_ALIVE_SECONDS: Final = 75
"""Longer than the idle time of usual load balancers, or they would reuse a closed connection."""
OTHER_FILES: Final = 512
"""Files that a process has open besides its clients' connections, at most."""


class PortInUse(Conflict):
    """Another program listens on the port, or the address is not this machine's."""

    code = "api.port_in_use"


@dataclass(frozen=True, slots=True)
class Sockets:
    """The two sockets of an API process, listening."""

    public: socket.socket
    management: socket.socket

    def urls(self) -> dict[str, str]:
        return {"api_url": url_of(self.public), "management_url": url_of(self.management)}


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `PortInUse`."""
    try:
        # allow deadline: an address to listen on is local, so no server is asked.
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise PortInUse(
            f"Cannot listen on {host}:{port}: {error.strerror}. Stop what listens there, or choose"
            " another address (--host, --port, --management-port)."
        ) from error


def open_sockets(settings: Settings) -> Sockets:
    """Both sockets, or none."""
    public = listen(settings.api.host, settings.api.port)
    try:
        management = listen(settings.api.management_host, settings.api.management_port)
    except BaseException:
        public.close()
        raise
    return Sockets(public, management)


def url_of(listening: socket.socket) -> str:
    """Where a client on this machine reaches it."""
    host, port = listening.getsockname()[:2]
    address = ip_address(host)
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if isinstance(address, IPv4Address) else "::1")
    return f"http://{f'[{address}]' if isinstance(address, IPv6Address) else address}:{port}"


def announce(sockets: Sockets) -> None:
    """Say that both ports listen: in the log, and as a JSON line to who asked for it."""
    urls = sockets.urls()
    log.info("listening", **urls)
    announcement.announce(**urls)


def run(settings: Settings, sockets: Sockets, *, ready: Callable[[Sockets], None]) -> None:
    """Serve until a signal; `ready` is called once both ports serve."""
    allow_files(2 * settings.api.max_connections + OTHER_FILES)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, sockets, ready=ready))


def allow_files(wanted: int) -> None:
    """Raise the soft limit on open files, often 1,024, as far as it is wanted and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning("fewer files may be opened than are needed", wanted=wanted, allowed=allowed)


async def serve(settings: Settings, sockets: Sockets, *, ready: Callable[[Sockets], None]) -> None:
    """As `run`, on the running loop."""
    with tracing(settings.telemetry, SERVICE) as tracer, _signals() as stop:
        api = create_app(settings, tracer=tracer)
        grace, most = settings.api.shutdown_timeout.total_seconds(), settings.api.max_connections
        management = _configuration(create_management(api), grace=1, max_connections=most)
        public = _configuration(api, grace=grace, max_connections=most)
        async with (
            _serving(management, sockets.management, stop),
            api.router.lifespan_context(api),
        ):
            await prepare(api)
            async with _serving(public, sockets.public, stop):
                ready(sockets)
                await stop.asked.wait()
                log.info("shutting down", at_most_seconds=grace)
                api.state.health.stopping.set()
    log.info("stopped")


class Stop:
    """A wish to stop: the first signal asks, the second insists."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()

    def signalled(self) -> None:
        (self.insisted if self.asked.is_set() else self.asked).set()


@contextlib.contextmanager
def _signals() -> Iterator[Stop]:
    loop, stop = asyncio.get_running_loop(), Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.signalled)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class _Server(uvicorn.Server):
    """uvicorn's server, without its own signal handling and lifespan."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _serving(
    configuration: uvicorn.Config, listening: socket.socket, stop: Stop
) -> AsyncIterator[None]:
    """Serve inside the block; at its end open requests have their grace, or until insistence.

    A server that ends by itself is a wish to stop.
    """
    server = _Server(configuration)
    task = asyncio.create_task(server.serve([listening]))
    task.add_done_callback(lambda _: stop.asked.set())
    insistence = asyncio.create_task(_force(server, stop))
    try:
        await _first_of(server.is_up.wait(), stop.asked.wait())
        yield
    finally:
        server.should_exit = True
        await task
        insistence.cancel()


async def _force(server: _Server, stop: Stop) -> None:
    await stop.insisted.wait()
    server.force_exit = True


async def _first_of(*waits: Coroutine[None, None, object]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _configuration(app: ASGIApp, *, grace: float, max_connections: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=cast(Any, partial(BoundedProtocol, limit=ConnectionLimit(max_connections))),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        # Who is trusted to say a client's address is our own setting.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(grace),
    )
