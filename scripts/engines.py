"""The programs that build images, in one vocabulary: Docker, Podman and Buildah.

Buildah works in a store of its own in our cache and runs the steps of a build under chroot, so it
needs neither a daemon nor what containers need of a kernel.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from toolchain import ROOT, say

NONE_FOUND: Final = (
    "Images are built with docker, podman or buildah, and none of them works here. Docker's daemon "
    "must run; buildah has none (`apt install buildah`)."
)


class EngineError(Exception):
    """There is no engine, or it failed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Build:
    """What an image is made from, and for when it is dated."""

    tag: str
    dockerfile: str
    arguments: Mapping[str, str]
    secrets: Mapping[str, Path]
    folders: Sequence[Path]
    """Folders with packages, to be had at the same place in the build."""
    epoch: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class Engine:
    """One of them, with what every command of it starts with."""

    name: str
    command: Sequence[str]

    def works(self) -> bool:
        probe = "info" if self.name == "docker" else "version"
        return shutil.which(self.name) is not None and self._run(probe, quiet=True) is not None

    def has(self, image: str) -> bool:
        kind = [] if self.name == "buildah" else ["image"]
        options = ["--type", "image"] if self.name == "buildah" else []
        return self._run(*kind, "inspect", *options, image, quiet=True) is not None

    def pull(self, image: str) -> bool:
        return self.has(image) or self._run("pull", image) is not None

    def layers(self, image: str) -> list[str]:
        """The digests of an image's layers."""
        if self.name == "buildah":
            inspected = json.loads(self._answer("inspect", "--type", "image", image))
            return [*inspected["OCIv1"]["rootfs"]["diff_ids"]]
        return [*json.loads(self._answer("image", "inspect", image))[0]["RootFS"]["Layers"]]

    def build(self, build: Build) -> None:
        command = [
            "build",
            *(f"--secret=id={name},src={path}" for name, path in build.secrets.items()),
            *(f"--build-arg={name}={value}" for name, value in build.arguments.items()),
            *([f"--target={build.target}"] if build.target else []),
            *self._dialect(build),
            *("--tag", build.tag, "--file", build.dockerfile, "."),
        ]
        if self._run(*command, epoch=build.epoch) is None:
            raise EngineError(f"{self.name} could not build {build.tag}; the reason is above.")

    def _dialect(self, build: Build) -> list[str]:
        """What the engines call differently, or not at all."""
        if self.name == "docker":
            if build.folders:
                say(f"docker can't mount {', '.join(map(str, build.folders))}; built without.")
            return ["--provenance=false"]
        mounts = [f"--volume={folder}:{folder}:ro" for folder in build.folders]
        local = ["--pull-never"] if build.arguments["BASE"].startswith("localhost/") else []
        how = ["--layers", "--format=oci", "--identity-label=false", f"--timestamp={build.epoch}"]
        return [*how, *local, *mounts]

    def save(self, image: str, archive: Path) -> None:
        """Write an OCI archive, in which the image bears its tag."""
        commands = {
            "buildah": ["push", "--quiet", image, f"oci-archive:{archive}:{image}"],
            "podman": ["save", "--quiet", "--format=oci-archive", "--output", str(archive), image],
            "docker": ["save", "--output", str(archive), image],
        }
        self._answer(*commands[self.name])

    def import_base(
        self,
        archive: Path,
        image: str,
        environ: Mapping[str, str],
        *,
        epoch: int,
        command: str = "",
    ) -> None:
        """Make an image of one layer out of an archive of files."""
        container = self._answer("from", "scratch").strip()
        try:
            self._answer("add", "--quiet", container, str(archive), "/")
            pairs = [f"--env={name}={value}" for name, value in environ.items()]
            starting = [f"--cmd={command}"] if command else []
            self._answer("config", *pairs, *starting, container)
            dated = f"--timestamp={epoch}"
            self._answer("commit", "--quiet", "--format=oci", dated, container, image)
        finally:
            self._answer("rm", container)

    def derive(self, base: str, image: str, *, entrypoint: str) -> None:
        """Make an image of another's files that starts something else."""
        container = self._answer("from", "--pull-never", base).strip()
        try:
            self._answer("config", f"--entrypoint={entrypoint}", container)
            self._answer("commit", "--quiet", "--format=oci", container, image)
        finally:
            self._answer("rm", container)

    def _answer(self, *arguments: str) -> str:
        found = self._run(*arguments, quiet=True)
        if found is None:
            raise EngineError(f"`{self.name} {' '.join(arguments)}` failed.")
        return found

    def _run(self, *arguments: str, quiet: bool = False, epoch: int = 0) -> str | None:
        """What a command prints, or None where it failed; all but quiet ones show what they do."""
        dated = {"SOURCE_DATE_EPOCH": str(epoch), "DOCKER_BUILDKIT": "1"} if epoch else {}
        env = {"BUILDAH_ISOLATION": "chroot", **os.environ, **dated}
        output = subprocess.PIPE if quiet else None
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            check=False,
        )
        return (done.stdout or "") if done.returncode == 0 else None


def engines(store: Path) -> dict[str, Engine]:
    """All three, in the order in which they are tried."""
    own = ["--root", str(store / "images"), "--runroot", str(store / "run")]
    commands = {"docker": ["docker"], "podman": ["podman"], "buildah": ["buildah", *own]}
    return {name: Engine(name, command) for name, command in commands.items()}


def choose(store: Path, wanted: str | None = None) -> Engine:
    """The engine of this name, else the first that works."""
    known = engines(store)
    if wanted is not None:
        if wanted not in known or not known[wanted].works():
            raise EngineError(f"There is no {wanted} that works here.")
        return known[wanted]
    for engine in known.values():
        if engine.works():
            return engine
    raise EngineError(NONE_FOUND)
