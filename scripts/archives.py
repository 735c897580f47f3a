"""Reads an image out of its OCI archive: its configuration, its files and their sizes.

Needs no container engine, so what an image holds can be judged wherever the archive is. Whiteouts
are heeded: a file counts when somebody in the container would see it.
"""

import contextlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Entry:
    """What one path is, and the number of the layer that it is in."""

    layer: int
    info: tarfile.TarInfo

    @property
    def size(self) -> int:
        return self.info.size if self.info.isreg() else 0


class ArchiveError(Exception):
    """The file is no archive of one image."""


class Archive:
    """One image in an OCI archive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        index = json.loads(self._member("index.json"))
        if len(index["manifests"]) != 1:
            raise ArchiveError(f"{self.path} holds {len(index['manifests'])} images, not one.")
        found: Mapping[str, Any] = json.loads(self._blob(index["manifests"][0]["digest"]))
        return found

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The image's configuration: `config`, `rootfs` and `history`."""
        found: Mapping[str, Any] = json.loads(self._blob(self.manifest["config"]["digest"]))
        return found

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        """All that is to be seen, by its path without a leading slash."""
        seen: dict[str, Entry] = {}
        for number in range(len(self.manifest["layers"])):
            with self._layer(number) as layer:
                for info in layer:
                    _apply(seen, number, info)
        return seen

    def files(self, *, above: int = 0) -> Mapping[str, Entry]:
        """All but folders, in the layers from this one up."""
        return {
            path: entry
            for path, entry in self.entries.items()
            if entry.layer >= above and not entry.info.isdir()
        }

    def layers_of(self, base: list[str]) -> int:
        """How many layers are those of its base. Raises `ArchiveError` where it's another's."""
        own = self.config["rootfs"]["diff_ids"]
        if own[: len(base)] != base:
            raise ArchiveError(f"{self.path} isn't built on that base.")
        return len(base)

    def read(self, path: str) -> bytes:
        """What a regular file holds. Raises `KeyError` where there is none."""
        entry = self.entries[path]
        with self._layer(entry.layer) as layer:
            reading = layer.extractfile(_original(layer, path))
            if reading is None:
                raise KeyError(path)
            return reading.read()

    def contents(self, keep: Callable[[bytes], str], *, above: int = 0) -> Mapping[str, str]:
        """What each file holds, put through a digest; links say where they lead."""
        found = {}
        for number in range(above, len(self.manifest["layers"])):
            with self._layer(number) as layer:
                for info in layer:
                    path, entry = _clean(info.name), self.entries.get(_clean(info.name))
                    if entry is not None and entry.layer == number and info.isreg():
                        reading = layer.extractfile(info)
                        found[path] = keep(reading.read() if reading else b"")
                    elif entry is not None and entry.layer == number and not info.isdir():
                        found[path] = f"-> {info.linkname}"
        return found

    def unpack(self, folder: Path) -> None:
        """Write the file system as a container would see it; owners need root."""
        for number in range(len(self.manifest["layers"])):
            with self._layer(number) as layer:
                for info in layer:
                    _unpack(layer, info, folder)

    @contextlib.contextmanager
    def _layer(self, number: int) -> Iterator[tarfile.TarFile]:
        blob = self._blob(self.manifest["layers"][number]["digest"])
        with tarfile.open(fileobj=io.BytesIO(blob), mode="r:*") as layer:
            yield layer

    def _blob(self, digest: str) -> bytes:
        return self._member(f"blobs/{digest.replace(':', '/')}")

    def _member(self, name: str) -> bytes:
        with tarfile.open(self.path) as archive:
            try:
                reading: IO[bytes] | None = archive.extractfile(name)
            except KeyError:
                reading = None
            if reading is None:
                raise ArchiveError(f"{self.path} has no {name}: it is no OCI archive.")
            return reading.read()


def _clean(name: str) -> str:
    return str(PurePosixPath(name)).removeprefix("/").removeprefix("./")


def _original(layer: tarfile.TarFile, path: str) -> tarfile.TarInfo:
    return next(info for info in layer if _clean(info.name) == path)


def _hidden(path: str) -> tuple[str, bool]:
    """What a whiteout hides, and whether that stays itself, empty."""
    place = PurePosixPath(path)
    if place.name == OPAQUE:
        return str(place.parent), True
    return str(place.with_name(place.name.removeprefix(WHITEOUT))), False


def _apply(seen: dict[str, Entry], number: int, info: tarfile.TarInfo) -> None:
    path = _clean(info.name)
    if not PurePosixPath(path).name.startswith(WHITEOUT):
        seen[path] = Entry(number, info)
        return
    hidden, stays = _hidden(path)
    below = [
        each
        for each, entry in seen.items()
        if entry.layer < number and (each.startswith(f"{hidden}/") or (each == hidden))
    ]
    for each in below:
        if each != hidden or not stays:
            del seen[each]


def _unpack(layer: tarfile.TarFile, info: tarfile.TarInfo, folder: Path) -> None:
    path = _clean(info.name)
    if not PurePosixPath(path).name.startswith(WHITEOUT):
        # The archive is our own; what it holds belongs to whom it says.
        layer.extract(info, folder, filter="fully_trusted")
        return
    hidden, stays = _hidden(path)
    doomed = folder / hidden
    for each in doomed.iterdir() if stays and doomed.is_dir() else [doomed]:
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)
