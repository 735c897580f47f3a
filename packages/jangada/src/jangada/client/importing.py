"""Sending a contact file and fetching what was rejected of it."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import httpx

from jangada.client.errors import FileUnreadable
from jangada.client.requests import ask, checked, reaching

PATH: Final = "/v1/contacts/imports"
CHUNK_BYTES: Final = 256 * 1024
TIMEOUT: Final = httpx.Timeout(60, connect=10, read=180)
"""Between the last byte and the answer the server flushes the file to its disk."""
STANDARD_INPUT: Final = Path("-")

type Sent = Callable[[int], None]


def open_input(path: Path) -> BinaryIO:
    """The file, or standard input for `-`. Raises `FileUnreadable`."""
    try:
        return sys.stdin.buffer if path == STANDARD_INPUT else path.open("rb")
    except OSError as error:
        raise FileUnreadable(f"{path} cannot be read: {error.strerror}.") from error


def size_of(file: BinaryIO) -> int | None:
    """What is left of it to read, in bytes; None for what has no size, as a pipe."""
    status = os.fstat(file.fileno())
    return status.st_size - file.tell() if stat.S_ISREG(status.st_mode) else None


def send_file(
    http: httpx.Client, file: BinaryIO, name: str, params: dict[str, Any], *, sent: Sent
) -> dict[str, Any]:
    """Stream the file to the server; returns the job that imports it."""
    size = size_of(file)
    disposition = 'attachment; filename="{}"'.format(name.replace("\\", "_").replace('"', "_"))
    headers = [(b"Content-Type", b"text/csv"), (b"Content-Disposition", disposition.encode())]
    if size is not None:
        headers.append((b"Content-Length", str(size).encode()))
    # Whoever is not signed in learns it here, before a gigabyte is sent.
    ask(http, "GET", "/v1/me")
    job: dict[str, Any] = ask(
        http,
        "POST",
        PATH,
        params=params,
        headers=headers,
        content=_chunks(file, size, sent),
        timeout=TIMEOUT,
    ).json()
    return job


def _chunks(file: BinaryIO, size: int | None, sent: Sent) -> Iterator[bytes]:
    """As much as was announced, also of a file that grows meanwhile."""
    left = sys.maxsize if size is None else size
    while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
        yield chunk
        left -= len(chunk)
        sent(len(chunk))


def save_rejects(http: httpx.Client, job_id: str, path: Path) -> None:
    """The rejected rows as a file that can be corrected and imported again; replaces the path."""
    draft = path.with_name(f"{path.name}.part")
    try:
        with (
            reaching(http),
            http.stream("GET", f"{PATH}/{job_id}/rejects") as response,
            draft.open("wb") as file,
        ):
            for chunk in checked(response).iter_bytes():
                file.write(chunk)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
