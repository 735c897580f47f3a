"""An image with files on top of another's, without an engine: what a later release would bring.

An OCI archive is a tar of blobs, named by their digests: the index names a manifest, which names
the layers and a configuration, which names the layers' contents.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

INDEX: Final = "index.json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar"


def with_files(archive: Path, files: Mapping[str, str], result: Path, *, name: str) -> None:
    """Write the archive's one image, with these files by their paths, under another name."""
    layer = _layer(files)
    with tarfile.open(archive) as before, tarfile.open(result, "w") as after:
        index = json.loads(_read(before, INDEX))
        manifest = json.loads(_blob(before, index["manifests"][0]))
        config = json.loads(_blob(before, manifest["config"]))
        config["rootfs"]["diff_ids"].append(_digest(layer))
        manifest["config"] |= _added(after, json.dumps(config).encode())
        manifest["layers"].append({"mediaType": LAYER, **_added(after, layer)})
        index["manifests"][0] |= _added(after, json.dumps(manifest).encode())
        index["manifests"][0]["annotations"] = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name,
        }
        for member in before:
            if member.isfile() and member.name.removeprefix("./") != INDEX:
                after.addfile(member, before.extractfile(member))
        _add(after, INDEX, json.dumps(index).encode())


def _layer(files: Mapping[str, str]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as layer:
        for path, content in files.items():
            _add(layer, path.removeprefix("/"), content.encode())
    return written.getvalue()


def _blob(archive: tarfile.TarFile, described: Mapping[str, Any]) -> bytes:
    return _read(archive, f"blobs/{described['digest'].replace(':', '/')}")


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    members = (each for each in archive if each.name.removeprefix("./") == name)
    file = archive.extractfile(next(members))
    assert file is not None, "a file"
    return file.read()


def _added(archive: tarfile.TarFile, content: bytes) -> dict[str, Any]:
    """Add a blob; answers how it is described."""
    digest = _digest(content)
    _add(archive, f"blobs/{digest.replace(':', '/')}", content)
    return {"digest": digest, "size": len(content)}


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
