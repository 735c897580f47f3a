"""How fast a contact file is received, beside a bare ASGI application that writes and flushes it.

The API is the real one (`jangada api` on an embedded PostgreSQL and Valkey): sign-in, quota,
lease, and file, import and job committed. Runs alternate, so that both see the same disk.
"""

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from figures import Figure, Promise, report
from pydantic import SecretStr

from jangada.config import DatabaseSettings
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey
from jangada.migrations import run as migrations

HERE = Path(__file__).parent
MEBIBYTE = 1024 * 1024
API = ("-m", "jangada", "api")
PATH = "/v1/contacts/imports"
RAW_FLOOR, FORM_FLOOR = 0.60, 0.40
HEAD = (
    b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="contacts.csv"\r\n'
    b"Content-Type: text/csv\r\n\r\n"
)
TAIL = b"\r\n--frontier--\r\n"
ROW = b"%012d,Maria da Silva,maria.%012d@example.com,+5511987654321,Padaria Estrela do Mar\r\n"


@dataclass(frozen=True, slots=True)
class Target:
    """Where files are sent to."""

    port: int
    folder: Path
    authorization: str = ""

    def mebibytes_per_second(self, block: bytes, blocks: int, *, as_form: bool = False) -> float:
        """Send one file as fast as it is taken; afterwards the folder is emptied."""
        before, after = (HEAD, TAIL) if as_form else (b"", b"")
        media_type = "multipart/form-data; boundary=frontier" if as_form else "text/csv"
        length = len(before) + len(block) * blocks + len(after)
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
            f"Content-Length: {length}\r\nConnection: close\r\n{self.authorization}\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.port), timeout=300) as connection:
            began = time.perf_counter()
            connection.sendall(head.encode() + before)
            for _ in range(blocks):
                connection.sendall(block)
            connection.sendall(after)
            answer = connection.recv(65_536)
            took = time.perf_counter() - began
        if b" 202 " not in answer.partition(b"\r\n")[0]:
            raise SystemExit(f"An upload failed: {answer.decode(errors='replace')}")
        shutil.rmtree(self.folder)
        self.folder.mkdir(mode=0o700)
        os.sync()
        return len(block) * blocks / took / MEBIBYTE


@contextmanager
def program(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[str]:
    """A child process; gives its first line of output."""
    child = subprocess.Popen(  # noqa: S603 - our own programs
        [sys.executable, *arguments],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert child.stdout is not None
        yield child.stdout.readline()
    finally:
        child.terminate()
        child.wait(30)


@contextmanager
def bare(folder: Path) -> Iterator[Target]:
    folder.mkdir()
    with program(str(HERE / "bare_upload.py"), str(folder)) as line:
        yield Target(int(line), folder)


@contextmanager
def api(folder: Path) -> Iterator[Target]:
    """The API on servers of its own, and somebody signed in."""
    files = folder / "files"
    files.mkdir(mode=0o700)
    with (
        EmbeddedPostgres(folder / "postgres") as postgres,
        EmbeddedValkey(folder / "valkey") as valkey,
    ):
        migrations.upgrade(DatabaseSettings(url=SecretStr(postgres.url)))
        environment = {
            "JANGADA_DATABASE__URL": postgres.url,
            "JANGADA_VALKEY__URL": valkey.url,
            "JANGADA_AUTH__MASTER_KEY": secrets.token_hex(32),
            "JANGADA_API__PORT": "0",
            "JANGADA_API__MANAGEMENT_PORT": "0",
            "JANGADA_STORAGE__URL": f"file://{files}",
            "JANGADA_STORAGE__MAX_STORED_BYTES_PER_TENANT": str(1 << 50),
            "JANGADA_TELEMETRY__LOG_FORMAT": "json",
        }
        with ready_api(environment) as url:
            token = sign_in(url)
            yield Target(httpx.URL(url).port or 80, files, f"Authorization: Bearer {token}\r\n")


@contextmanager
def ready_api(environment: dict[str, str]) -> Iterator[str]:
    """The API as a child process; gives its URL once it serves."""
    reader, writer = os.pipe()
    child = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, *API],
        env=os.environ | environment | {"JANGADA_READY_FD": str(writer)},
        stderr=subprocess.DEVNULL,
        pass_fds=[writer],
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as ready:
            yield json.loads(ready.readline())["api_url"]
    finally:
        child.terminate()
        child.wait(60)


def sign_in(url: str) -> str:
    credentials = {"email": "bench@example.com", "password": secrets.token_urlsafe(24)}
    with httpx.Client(base_url=url, timeout=30) as client:
        client.post("/v1/auth/register", json=credentials | {"name": "Bench"}).raise_for_status()
        login = client.post("/v1/auth/login", json=credentials).raise_for_status()
    token: str = login.json()["access_token"]
    return token


def block_of_rows() -> bytes:
    """About a megabyte of what contact files are made of."""
    return b"".join(ROW % (number, number) for number in range(9_000))


def measure(folder: Path, *, runs: int, mebibytes: int) -> list[Promise]:
    block = block_of_rows()
    blocks = mebibytes * MEBIBYTE // len(block)
    rates: dict[str, list[float]] = {"bare": [], "raw": [], "form": []}
    with ExitStack() as stack:
        simple = stack.enter_context(bare(folder / "bare"))
        ours = stack.enter_context(api(folder))
        for run in range(runs + 1):
            found = {
                "bare": simple.mebibytes_per_second(block, blocks),
                "raw": ours.mebibytes_per_second(block, blocks),
                "form": ours.mebibytes_per_second(block, blocks, as_form=True),
            }
            if run > 0:  # the first run warms everything up
                for name, rate in found.items():
                    rates[name].append(rate)
    least = Figure("bare ASGI, write and fsync", "MiB/s", tuple(rates["bare"]))
    return [
        Promise(Figure("raw text/csv", "MiB/s", tuple(rates["raw"])), least, RAW_FLOOR),
        Promise(Figure("multipart/form-data", "MiB/s", tuple(rates["form"])), least, FORM_FLOOR),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mebibytes", type=int, default=256, help="size of the file")
    options = parser.parse_args()
    # Beside the sources and not under /tmp, which may be memory: flushing must reach a disk.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=HERE.parent) as folder:
        promises = measure(Path(folder), runs=options.runs, mebibytes=options.mebibytes)
    title = f"Uploads of {options.mebibytes} MiB, median of {options.runs}"
    return report(title, promises)


if __name__ == "__main__":
    sys.exit(main())
