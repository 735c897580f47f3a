"""The images that a node takes beside ours, made here: no registry of images is asked.

`tools/images/stand-ins` says what they are, and that they aren't the official ones. Each is an OCI
archive in the cache of images, under a digest of what it is made from.
"""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import images
from engines import Engine, EngineError, choose
from toolchain import ROOT, say

from node.settings import SANDBOX

FOLDER: Final = ROOT / "tools/images/stand-ins"
POSTGRES: Final = "docker.io/library/postgres:18-alpine"
VALKEY: Final = "docker.io/valkey/valkey:9-alpine"
ENVIRON: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}


@dataclass(frozen=True, slots=True)
class StandIn:
    """An image: what it goes by on the node, and what runs in it."""

    name: str
    entrypoint: str


KNOWN: Final = (
    StandIn(POSTGRES, '["docker-entrypoint.sh"]'),
    StandIn(VALKEY, '["valkey-server"]'),
    StandIn(SANDBOX, '["sleep", "infinity"]'),
)


def _digest() -> str:
    made_of = [path.read_bytes() for path in sorted(FOLDER.glob("*.sh"))]
    return hashlib.sha256(repr((made_of, KNOWN, ENVIRON)).encode()).hexdigest()[:12]


def place() -> Path:
    return images.cache() / f"stand-ins-{_digest()}"


def find() -> Mapping[str, Path] | None:
    """The archives by the names of their images, where they have been made."""
    folder = place()
    if not folder.is_dir():
        return None
    return {each.name: folder / f"{number}.tar" for number, each in enumerate(KNOWN)}


def ensure() -> Mapping[str, Path]:
    """As `find`, made when needed. Raises `EngineError`."""
    if (found := find()) is None:
        with images.turn():
            if not place().is_dir():
                _make()
        found = find()
        assert found is not None, "just made"
    return found


def _make() -> None:
    """All of them beside, then rename: they share their one layer."""
    if shutil.which("mmdebstrap") is None:
        raise EngineError("The stand-ins are made with mmdebstrap (`apt install mmdebstrap`).")
    engine = choose(images.cache() / "store", "buildah")
    say("Making the stand-ins for PostgreSQL and Valkey; it takes a minute, once.")
    draft = Path(tempfile.mkdtemp(dir=images.cache(), prefix="stand-ins.part-"))
    try:
        files = draft / "files.tar"
        command = ["sh", str(FOLDER / "make.sh"), str(files)]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own script
            raise EngineError("mmdebstrap failed; the reason is above.")
        base = f"localhost/jangada-stand-ins:{_digest()}"
        engine.import_base(files, base, ENVIRON, epoch=images.FIRST_DATE)
        files.unlink()
        for number, each in enumerate(KNOWN):
            _save(engine, base, each, draft / f"{number}.tar")
        draft.rename(place())
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _save(engine: Engine, base: str, wanted: StandIn, archive: Path) -> None:
    engine.derive(base, wanted.name, entrypoint=wanted.entrypoint)
    engine.save(wanted.name, archive)
