"""The log files of servers and children: private, bounded, and quoted when something fails.

Each run begins a new file, and the one before is kept beside it as `.old`.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

MAX_BYTES = 8 * 1024 * 1024


def begin_log(path: Path) -> None:
    """Put the log of the run before aside."""
    with suppress(FileNotFoundError):
        path.replace(path.with_name(f"{path.name}.old"))


def open_log(path: Path) -> IO[bytes]:
    """Append to a private file, or begin a new one once it has grown large."""
    if path.exists() and path.stat().st_size > MAX_BYTES:
        begin_log(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return os.fdopen(descriptor, "ab", buffering=0)


class LogFile:
    """A log that stays bounded however long the platform runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        begin_log(path)
        self._file = open_log(path)
        self._bytes = self._file.tell()

    def write(self, line: bytes) -> None:
        if self._bytes > MAX_BYTES:
            self._file.close()
            self._file = open_log(self._path)
            self._bytes = self._file.tell()
        self._bytes += self._file.write(line + b"\n")

    def close(self) -> None:
        self._file.close()


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for a message that says why something failed."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return "(there is no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"
