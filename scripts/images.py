"""Builds the images of the services into OCI archives, which lie outside the checkout.

An archive is named for all that it is made from, so what is there already isn't built again, and it
appears whole or not at all, with the list of its parts beside it. What this machine's pip is told
about packages is what the build is told, as secrets that no layer keeps.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import contexts
from archives import Archive, ArchiveError
from engines import Build, Engine, EngineError, choose
from toolchain import PIP_TO_UV, ROOT, SetupError, pip_environment, say, uv_environment

SERVICES: Final = ("api", "worker", "operator")
BASE: Final = "docker.io/library/python:3.13-slim"
RECIPE: Final = ROOT / "tools/images/base.sh"
AUTHORITIES: Final = "/run/secrets/authorities"
PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
UV_NAMES: Final = {*PIP_TO_UV.values()} - {"SSL_CERT_FILE", "SSL_CLIENT_CERT"}
FACTS: Final = "image.json"
"""What else is known of an image, in the folder of its archive; written last."""

FIRST_DATE: Final = 315532800
"""1980-01-01, of all files: when a layer was made is no part of it. A label has the true date."""

KEPT: Final = 4
"""Archives of a service that are kept, the newest: other checkouts may use theirs."""

STAND_IN: Final = """
*** {base} can't be had here, so the images stand on one that mmdebstrap makes of
*** Debian's packages (tools/images/README.md). They are for tests on this machine: publish none.
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which state of the sources an image is made from."""

    version: str
    revision: str
    source: str
    created: str


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its service, its archive and what else is known of it."""

    service: str
    folder: Path
    base_layers: int
    base: str
    tag: str

    @property
    def archive(self) -> Path:
        return self.folder / f"jangada-{self.service}.tar"

    @property
    def parts(self) -> Path:
        return self.folder / f"jangada-{self.service}.cdx.json"


def cache() -> Path:
    """Where archives are kept, and what engines without a place of their own work in."""
    if place := os.environ.get("JANGADA_IMAGES"):
        return Path(place).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jangada" / "images"


def _git(*arguments: str) -> str:
    command = ["git", "-c", "safe.directory=*", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def origin() -> Origin:
    """The last commit that changed what goes in, or what can be said where git knows nothing."""
    going_in = [contexts.IGNORE, contexts.DOCKERFILE, *contexts.files()]
    revision, _, date = _git("log", "-1", "--format=%H %cI", "--", *going_in).partition(" ")
    if revision and _git("status", "--porcelain", "--", *going_in):
        revision += "-dirty"
    project = tomllib.loads((ROOT / "packages/jangada/pyproject.toml").read_text("utf-8"))
    return Origin(
        project["project"]["version"], revision or "unknown", _source(), date or "unknown"
    )


def _epoch() -> int:
    return int(os.environ.get("SOURCE_DATE_EPOCH") or FIRST_DATE)


def _source() -> str:
    """Where the sources are published, as far as this clone knows; never with a password."""
    url = urlsplit(_git("remote", "get-url", "origin"))
    return f"https://{url.hostname}{url.path}" if url.scheme in {"https", "ssh"} else "unknown"


def _told() -> dict[str, str]:
    """What the build is told about packages: this machine's pip's words, for pip and for uv."""
    uv = uv_environment()
    told = {**pip_environment(), **{name: uv[name] for name in UV_NAMES if name in uv}}
    spelled = [each for name in PROXIES for each in (name, name.lower())]
    told |= {name: os.environ[name] for name in spelled if os.environ.get(name)}
    told.pop("PIP_CERT", None)
    told.pop("PIP_CLIENT_CERT", None)
    if _authorities() is not None:
        told |= {"PIP_CERT": AUTHORITIES, "SSL_CERT_FILE": AUTHORITIES}
    return told


def _authorities() -> Path | None:
    """The certificates that this machine trusts."""
    known = (uv_environment().get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile)
    return next((Path(path) for path in known if path and Path(path).is_file()), None)


@contextmanager
def _secrets() -> Iterator[dict[str, Path]]:
    """The secrets of a build, which are files for as long as it takes."""
    with tempfile.TemporaryDirectory(prefix="jangada-images-") as folder:
        told = Path(folder) / "packages"
        told.touch(mode=0o600)
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(_told().items())]
        told.write_text("".join(lines), "utf-8")
        authorities = _authorities()
        yield {"packages": told, **({"authorities": authorities} if authorities else {})}


def _folders() -> list[Path]:
    words = pip_environment().get("PIP_FIND_LINKS", "").split()
    return [Path(word) for word in words if Path(word).is_absolute()]


def choose_with_base(wanted: str | None, *, local: bool) -> tuple[Engine, str]:
    """An engine and its base: as published, or a stand-in where no registry answers."""
    store = cache() / "store"
    if not local and (engine := choose(store, wanted)).pull(BASE):
        return engine, BASE
    say(STAND_IN.format(base=BASE))
    if wanted not in {None, "buildah"}:
        raise EngineError(f"The stand-in is made with buildah, and {wanted} was asked for.")
    engine = choose(store, "buildah")
    digest = hashlib.sha256(RECIPE.read_bytes()).hexdigest()[:12]
    image = f"localhost/python-3.13-slim:{digest}"
    if not engine.has(image):
        _make_base(engine, image)
    return engine, image


def _make_base(engine: Engine, image: str) -> None:
    if shutil.which("mmdebstrap") is None:
        raise EngineError("The stand-in is made with mmdebstrap (`apt install mmdebstrap`).")
    say("Making the stand-in; it takes half a minute, once.")
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        archive = Path(scratch) / "base.tar"
        environ = {**os.environ, "SOURCE_DATE_EPOCH": str(FIRST_DATE)}
        made = subprocess.run(["sh", str(RECIPE), str(archive)], env=environ, check=False)
        if made.returncode:
            raise EngineError("mmdebstrap failed; the reason is above.")
        path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        environ = {"PATH": path, "LANG": "C.UTF-8"}
        engine.import_base(archive, image, environ, epoch=FIRST_DATE, command="python3")


def sources() -> str:
    """A digest of all that the images are made from but their base."""
    made_of = f"{contexts.fingerprint()} {asdict(origin())} {_epoch()}"
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def find(service: str) -> Image | None:
    """The image of these sources that was asked for last, on whichever base it was built."""
    known = (folder for folder in cache().glob(f"{service}-{sources()}-*") if _is_whole(folder))
    found = max(known, key=lambda folder: folder.stat().st_mtime, default=None)
    return None if found is None else _read(service, found)


def _is_whole(folder: Path) -> bool:
    return (folder / FACTS).exists()


def _read(service: str, folder: Path) -> Image:
    facts = json.loads((folder / FACTS).read_text("utf-8"))
    return Image(service, folder, facts["base_layers"], facts["base"], facts["tag"])


def ensure(service: str, engine: Engine, base: str) -> Image:
    """The image of a service, built when it isn't there. Raises `EngineError`."""
    layers = engine.layers(base)
    stands_on = hashlib.sha256(repr((base, layers)).encode()).hexdigest()[:8]
    folder = cache() / f"{service}-{sources()}-{stands_on}"
    if not _is_whole(folder):
        tag = f"localhost/jangada-{service}:{origin().version}"
        _build(Image(service, folder, len(layers), base, tag), engine, layers)
    os.utime(folder)
    return _read(service, folder)


def _build(image: Image, engine: Engine, base: list[str]) -> None:
    """Build beside, then rename."""
    began, origin_ = time.monotonic(), origin()
    say(f"Building the image of {image.service} with {engine.name}.")
    labels = {name.upper(): value for name, value in asdict(origin_).items()}
    arguments = {"BASE": image.base, "SERVICE": image.service, **labels}
    with _secrets() as secrets:
        engine.build(
            Build(image.tag, contexts.DOCKERFILE, arguments, secrets, _folders(), _epoch())
        )
    draft = Path(tempfile.mkdtemp(dir=cache(), prefix=f"{image.service}.part-"))
    try:
        made = Image(image.service, draft, image.base_layers, image.base, image.tag)
        engine.save(image.tag, made.archive)
        archive = Archive(made.archive)
        made.parts.write_bytes(archive.read(f"usr/share/sbom/jangada-{image.service}.cdx.json"))
        facts = {"base_layers": archive.layers_of(base), "base": image.base, "tag": image.tag}
        (draft / FACTS).write_text(json.dumps(facts), "utf-8")
        shutil.rmtree(image.folder, ignore_errors=True)
        draft.rename(image.folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _forget(image.service)
    say(f"Built in {time.monotonic() - began:.0f} s, into {image.folder}.")


def _forget(service: str) -> None:
    """Remove the archives that haven't been asked for the longest."""
    found = sorted(cache().glob(f"{service}-*"), key=lambda path: path.stat().st_mtime)
    for folder in found[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def turn() -> Iterator[None]:
    """One build at a time: another would make the same layers."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another build of images is under way; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_all(
    services: Sequence[str] = SERVICES, *, engine: str | None = None, local_base: bool = False
) -> Mapping[str, Image]:
    """The images of these services. Raises `EngineError` or `SetupError`."""
    with turn():
        chosen, base = choose_with_base(engine, local=local_base)
        return {service: ensure(service, chosen, base) for service in services}


def describe(image: Image) -> str:
    archive = Archive(image.archive)
    ours = sum(entry.size for entry in archive.files(above=image.base_layers).values())
    sizes = (
        f"{ours / 1e6:.0f} MB above its base, {image.archive.stat().st_size / 1e6:.0f} MB packed"
    )
    return f"{image.service:<9} {sizes}\n  {image.archive}\n  {image.parts}"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make images", description=__doc__.splitlines()[0])
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="default: all three")
    parser.add_argument("--engine", help="docker, podman or buildah; default: the first that works")
    parser.add_argument(
        "--local-base", action="store_true", help="don't ask a registry: use the stand-in"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.services) - set(SERVICES):
        parser.error(f"there is no service {', '.join(sorted(unknown))}")
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    try:
        built = build_all(
            options.services or SERVICES, engine=options.engine, local_base=options.local_base
        )
    except ArchiveError as error:
        say(f"{error} Docker writes them from version 25 on.")
        return 1
    except (EngineError, SetupError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Interrupted; the layers that were done are kept.")
        return 130
    for image in built.values():
        print(describe(image))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
