"""A Valkey and a PostgreSQL whose clocks can be set, beside the usual embedded ones."""

import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, Self, override

import psutil
import redis

from jangada.local.binaries import valkey_server
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.process import Child, Command, plain_environ, wait_until

PRELOADED: Final = tuple(
    Path(folder) / "faketime" / "libfaketimeMT.so.1"
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")
)
STARTING: Final = 30.0
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the library's choice


class Valkey(Protocol):
    """What harness and raft need of a server."""

    def __init__(self, folder: Path) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    @property
    def url(self) -> str: ...
    @property
    def child(self) -> Child: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


def faketime() -> Path | None:
    """The library that sets the clock of one process, where Debian's `libfaketime` is installed."""
    return next((path for path in PRELOADED if path.exists()), None)


def clean_memory() -> None:
    """Remove what the library leaves of processes that have ended."""
    for path in MEMORY.glob("*faketime_s*_*"):
        if not psutil.pid_exists(int(path.name.rpartition("_")[2])):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class WallClock:
    """The wall clock of one server, which jumps on demand; the monotonic one goes on."""

    offset: Path

    def jump(self, seconds: int) -> None:
        """From now on the server's clock is so many seconds ahead of the machine's."""
        fresh = self.offset.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}")
        fresh.chmod(0o644)
        fresh.rename(self.offset)

    @property
    def environ(self) -> dict[str, str]:
        """What a server is started with, to have this clock."""
        library = faketime()
        assert library is not None, "ask faketime() first"
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.offset),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


class ClockedPostgres(EmbeddedPostgres):
    """The usual one, with a wall clock of its own."""

    def __init__(self, folder: Path, *, max_connections: int = 100) -> None:
        super().__init__(folder, max_connections=max_connections)
        self.clock = WallClock(folder.with_name("postgres-clock"))
        self.clock.jump(0)

    @override
    def stop(self) -> None:
        super().stop()
        clean_memory()

    @override
    def _command(self, argv: list[str], *, record: str) -> Command:
        command = super()._command(argv, record=record)
        return replace(command, environ={**command.environ, **self.clock.environ})


class ClockedValkey:
    """A Valkey with a wall clock of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.clock = WallClock(folder / "offset")
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(mode=0o700)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"unix://{self._folder / 's'}?db=0"

    @property
    def child(self) -> Child:
        assert self._child is not None, "it was not started"
        return self._child

    def start(self) -> None:
        self.clock.jump(0)
        options = {"port": "0", "unixsocket": str(self._folder / "s"), "save": ""}
        command = Command(
            argv=[
                str(valkey_server()),
                *(word for name, value in options.items() for word in (f"--{name}", value)),
            ],
            environ={**plain_environ(), **self.clock.environ},
            folder=self._folder,
        )
        with (self._folder / "log").open("wb") as output:
            self._child = Child(command, output=output.fileno())
        assert wait_until(self._answers, STARTING), (self._folder / "log").read_text()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(((signal.SIGTERM, 10.0),))
            self._child = None
            clean_memory()

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
