"""A Valkey whose clock can be set, beside the usual embedded one."""

import signal
from pathlib import Path
from typing import Final, Protocol, Self

import redis

from jangada.local.binaries import valkey_server
from jangada.local.process import Child, Command, plain_environ, wait_until

PRELOADED: Final = tuple(
    Path(folder) / "faketime" / "libfaketimeMT.so.1"
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")
)
STARTING: Final = 30.0


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


class ClockedValkey:
    """A Valkey whose wall clock jumps on demand; its monotonic one goes on, as a machine's does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
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

    def jump(self, seconds: int) -> None:
        """From now on the server's clock is so many seconds ahead of the machine's."""
        fresh = self._folder / "offset.new"
        fresh.write_text(f"{seconds:+d}")
        fresh.rename(self._folder / "offset")

    def start(self) -> None:
        library = faketime()
        assert library is not None, "ask faketime() first"
        self.jump(0)
        options = {"port": "0", "unixsocket": str(self._folder / "s"), "save": ""}
        command = Command(
            argv=[
                str(valkey_server()),
                *(word for name, value in options.items() for word in (f"--{name}", value)),
            ],
            environ={
                **plain_environ(),
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(self._folder / "offset"),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
            },
            folder=self._folder,
        )
        with (self._folder / "log").open("wb") as output:
            self._child = Child(command, output=output.fileno())
        assert wait_until(self._answers, STARTING), (self._folder / "log").read_text()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(((signal.SIGTERM, 10.0),))
            self._child = None

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
