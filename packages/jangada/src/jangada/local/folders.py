"""A folder that belongs to one runner: private, locked while in use, with its own secrets."""

import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

from jangada.local.errors import FolderInUse, FolderUnusable

SOCKET_PATH_BYTES = 107
"""Bytes that the path of a Unix socket may have."""

PLAIN_PATH = re.compile(rb"[A-Za-z0-9_./-]+")
"""Paths that mean the same in a URL, a connection string and a list with commas."""


class Folder:
    """A private folder, held by at most one process; the kernel unlocks it when that dies.

    Whoever holds it may therefore take any server that is recorded in it for an orphan.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    def open(self) -> Self:
        make_private(self.path)
        self._lock = lock(self.path / "lock")
        return self

    def close(self) -> None:
        """Let go of the folder. Idempotent."""
        if self._lock is not None:
            self._forget_sockets()
            os.close(self._lock)
            self._lock = None

    def secret(self, name: str) -> str:
        """A password of this folder, made at its first use; only its owner can read it."""
        path = self.path / name
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32) + "\n")
        return path.read_text(encoding="ascii").strip()

    def sockets(self, longest: str) -> Path:
        """An empty private folder whose path leaves room for a socket of that name.

        It is below this one where that is short enough, otherwise a temporary one, which stays the
        same until `close` and is found again after a kill.
        """
        place = self.path / "run"
        if not _fits(place / longest):
            place = self._noted() or self._note_down(_temporary_folder(longest))
        # A killed server leaves its socket, with a lock whose process id it would trust.
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        return place

    @property
    def _note(self) -> Path:
        """The file that says where the sockets are when they are not in here."""
        return self.path / "sockets"

    def _note_down(self, place: Path) -> Path:
        write_private(self._note, f"{place}\n")
        return place

    def _noted(self) -> Path | None:
        """Temporary folders get cleaned and their names reused: only one that is ours counts."""
        with suppress(FileNotFoundError):
            place = Path(self._note.read_text(encoding="utf-8").strip())
            return place if is_own_folder(place) else None
        return None

    def _forget_sockets(self) -> None:
        place = self._noted()
        if place is not None:
            shutil.rmtree(place)
        self._note.unlink(missing_ok=True)


def is_own_folder(path: Path) -> bool:
    with suppress(OSError):
        found = path.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return False


def _fits(path: Path) -> bool:
    encoded = os.fsencode(path)
    return len(encoded) <= SOCKET_PATH_BYTES and PLAIN_PATH.fullmatch(encoded) is not None


def _temporary_folder(longest: str) -> Path:
    prefix = "jangada-"
    for parent in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):  # noqa: S108 - mkdtemp makes it private
        if _fits(parent / f"{prefix}12345678" / longest) and os.access(parent, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    raise FolderUnusable("No temporary folder for sockets: set TMPDIR to one with a short path.")


def make_private(path: Path) -> None:
    """Have a folder that is ours and closed to others; an existing one is refused, not changed."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise FolderUnusable(f"The folder {path} cannot be made: {error.strerror}.") from error
    if found.st_uid != os.geteuid():
        raise FolderUnusable(
            f"The folder {path} belongs to another user (id {found.st_uid}): choose another."
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise FolderUnusable(f"The folder {path} is open to others: `chmod 700` it first.")


def lock(path: Path) -> int:
    """Hold a file until the descriptor is closed or the process dies, or say who holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FolderUnusable(
            f"The folder {path.parent} cannot be written: {error.strerror}."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise FolderInUse(f"The folder {path.parent} is in use by process {holder}.") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all, and lasting."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    Path(draft).replace(path)
