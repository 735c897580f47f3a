"""Sessions that are kept between commands.

Guarantees: files are 0600 in folders of 0700, replaced as a whole, never followed through a link
that somebody else put there; whoever changes a session holds its lock and reads it anew first, so
of ten commands that find an expired token one refreshes it and nine use what it got.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import typer

from jangada.client.errors import SessionBusy

LOCK_DEADLINE: Final = timedelta(seconds=60)
LOOK_EVERY_SECONDS: Final = 0.05
SPARE: Final = timedelta(seconds=60)
"""A token counts as expired so long before it is: a clock may be slow, an upload begins late."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody signed in to a server. `expires_at` is the access token's end, in Unix seconds."""

    server: str
    email: str
    access_token: str
    refresh_token: str
    expires_at: float
    allow_http: bool = False

    def is_fresh(self) -> bool:
        return time.time() + SPARE.total_seconds() < self.expires_at


class SessionStore:
    """The folder of sessions, and which server was signed in to last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, server: str) -> Session | None:
        """The session of a server; None too for a file that an older release cannot have meant."""
        try:
            return Session(**json.loads(self._file(server).read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def save(self, session: Session) -> None:
        _replace(self._file(session.server), json.dumps(asdict(session)))

    def remove(self, server: str) -> None:
        self._file(server).unlink(missing_ok=True)
        if self.last_server() == server:
            self._last.unlink(missing_ok=True)

    def last_server(self) -> str | None:
        try:
            return self._last.read_text("utf-8")
        except FileNotFoundError:
            return None

    def make_last(self, server: str) -> None:
        _replace(self._last, server)

    @contextmanager
    def locked(self, server: str) -> Iterator[None]:
        """Hold the session's lock. Raises `SessionBusy` after a minute."""
        path = self._file(server).with_suffix(".lock")
        _make_private(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    @property
    def _last(self) -> Path:
        return self._folder / "last-server"

    def _file(self, server: str) -> Path:
        return self._folder / f"{hashlib.sha256(server.encode()).hexdigest()[:32]}.json"


def user_sessions() -> SessionStore:
    """The sessions of the user who runs the command."""
    folder = Path(typer.get_app_dir("jangada"))
    # XDG's specification: a variable that is empty or a relative path counts as unset.
    if not folder.is_absolute():
        folder = Path.home() / ".config" / "jangada"
    return SessionStore(folder / "sessions")


def _lock(descriptor: int) -> None:
    give_up_at = time.monotonic() + LOCK_DEADLINE.total_seconds()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                raise SessionBusy("Another jangada command holds the session.") from None
            time.sleep(LOOK_EVERY_SECONDS)
        else:
            return


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _replace(path: Path, content: str) -> None:
    """Readable by us only from the first moment, and never half written."""
    _make_private(path.parent)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)
