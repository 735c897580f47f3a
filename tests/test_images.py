"""Images are built by whichever engine works, from what this machine's pip is told."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import contexts
import engines
import images
import pytest
import toolchain
from archives import Archive, ArchiveError
from containers import specification
from engines import Build, EngineError

ENGINE = """#!/bin/sh
echo "{name} $*" >> "{folder}/calls"
for each; do
    case $each in --secret=id=packages,src=*) cat "${{each#*src=}}" >> "{folder}/told";; esac
done
{body}
"""


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A cache of this test's own, no engine but those that it makes, and no pip's settings."""
    for key in list(os.environ):
        if key.startswith(("PIP_", "UV_")) or key.upper().endswith("_PROXY"):
            monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("JANGADA_IMAGES", str(tmp_path / "cache"))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    for name in ("docker", "podman", "buildah"):
        make_engine(tmp_path, name, "exit 1")
    toolchain.uv_environment.cache_clear()
    yield
    toolchain.uv_environment.cache_clear()


def make_engine(folder: Path, name: str, body: str) -> None:
    program = folder / "bin" / name
    program.write_text(ENGINE.format(name=name, folder=folder, body=body))
    program.chmod(0o755)


def build(**arguments: str) -> Build:
    given = {"BASE": images.BASE, **arguments}
    return Build("localhost/x:1", "services/Dockerfile", given, {}, [], 1700000000)


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_an_engine_that_does_not_work_is_passed_over(tmp_path: Path) -> None:
    """As Docker's client where its daemon doesn't run."""
    make_engine(tmp_path, "buildah", "exit 0")
    assert engines.choose(tmp_path).name == "buildah"
    assert [line.split()[0] for line in calls(tmp_path)] == ["docker", "podman", "buildah"]


def test_without_an_engine_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert images.main(["api"]) == 1
    assert "docker, podman or buildah" in capsys.readouterr().err


def test_an_engine_can_be_asked_for(tmp_path: Path) -> None:
    make_engine(tmp_path, "docker", "exit 0")
    make_engine(tmp_path, "podman", "exit 0")
    assert engines.choose(tmp_path, "podman").name == "podman"
    with pytest.raises(EngineError, match="no buildah that works"):
        engines.choose(tmp_path, "buildah")


@pytest.mark.parametrize("name", ["docker", "podman", "buildah"])
def test_every_engine_builds_in_its_own_words(tmp_path: Path, name: str) -> None:
    make_engine(tmp_path, name, "exit 0")
    engines.choose(tmp_path, name).build(build(SERVICE="api"))
    said = calls(tmp_path)[-1]
    assert "--build-arg=SERVICE=api" in said
    assert "--file services/Dockerfile ." in said
    assert ("--timestamp=1700000000" in said) is (name != "docker")


def test_a_build_that_fails_is_told(tmp_path: Path) -> None:
    make_engine(tmp_path, "podman", '[ "$1" = version ]')
    with pytest.raises(EngineError, match="podman could not build"):
        engines.choose(tmp_path).build(build())


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        (["api"], "no buildah that works"),
        (["api", "--engine=podman"], "made with buildah, and podman was asked for"),
        (["api", "--local-base"], "no buildah that works"),
    ],
)
def test_without_a_registry_a_stand_in_is_asked_for_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], needs: str
) -> None:
    make_engine(tmp_path, "podman", '[ "$1" = version ]')
    assert images.main(options) == 1
    said = capsys.readouterr().err
    assert "*** docker.io/library/python:3.13-slim can't be had here" in said
    assert needs in said
    assert ("podman pull" in "".join(calls(tmp_path))) is ("--local-base" not in options)


def test_a_stand_in_is_made_with_buildah_whichever_engine_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And needs mmdebstrap, which isn't here."""
    make_engine(tmp_path, "podman", '[ "$1" = version ]')
    make_engine(tmp_path, "buildah", 'case "$*" in *version*) exit 0;; *) exit 1;; esac')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(EngineError, match="apt install mmdebstrap"):
        images.build_all(["api"])


def test_the_build_is_told_what_pip_is_told_and_nobody_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@index.example/simple")
    monkeypatch.setenv("PIP_TIMEOUT", "90")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    monkeypatch.setenv("PIP_PROXY", "http://pips.example")
    layers = json.dumps([{"RootFS": {"Layers": ["sha256:1"]}}]).replace('"', '\\"')
    make_engine(tmp_path, "podman", f'[ "$2" = inspect ] && echo "{layers}"; [ "$1" != save ]')
    assert images.main(["api"]) == 1  # nothing is saved, after all
    told = (tmp_path / "told").read_text()
    assert "PIP_INDEX_URL=https://me:secret@index.example/simple\n" in told
    assert "UV_DEFAULT_INDEX=https://me:secret@index.example/simple\n" in told
    assert "UV_HTTP_TIMEOUT=90\n" in told
    assert "HTTPS_PROXY=http://proxy.example\n" in told
    assert "\nALL_PROXY=http://pips.example\n" in f"\n{told}"
    assert [line for line in calls(tmp_path) if "secret@" in line] == []
    assert list((tmp_path / "cache").glob("api*")) == []


def test_what_is_told_arrives_in_the_build(tmp_path: Path) -> None:
    """The script that reads it runs what follows, with or without anything told."""
    script = toolchain.ROOT / "tools/images/told.sh"
    text = script.read_text().replace("/run/secrets/packages", str(tmp_path / "packages"))
    (tmp_path / "told.sh").write_text(text)
    command = ["sh", str(tmp_path / "told.sh"), "sh", "-c", 'echo "<$PIP_INDEX_URL>"']

    def said() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own script

    assert said() == "<>\n"
    (tmp_path / "packages").write_text("PIP_INDEX_URL='a b'\n")
    assert said() == "<a b>\n"


def test_the_same_sources_make_the_same_digest(tmp_path: Path) -> None:
    for name in (".dockerignore", "services/Dockerfile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("*\n!packages\npackages/*/*\n!packages/*/src\n")
    package = tmp_path / "packages/one"
    for name in ("src/one.py", "tests/test_one.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("1")
    before = contexts.fingerprint(tmp_path)
    assert list(contexts.files(tmp_path)) == ["packages/one/src/one.py"]
    (package / "tests/test_one.py").write_text("2")
    assert contexts.fingerprint(tmp_path) == before
    (package / "src/one.py").write_text("2")
    assert contexts.fingerprint(tmp_path) != before


def test_the_source_is_told_without_a_password() -> None:
    found = images.origin()
    assert "@" not in found.source
    assert found.source == "unknown" or found.source.startswith("https://")
    assert found.version.count(".") == 2


def layer(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def make_archive(path: Path, *layers: bytes) -> Archive:
    """An OCI archive of these layers."""
    blobs: dict[str, bytes] = {}

    def keep(content: bytes) -> str:
        digest = f"sha256:{sha256(content).hexdigest()}"
        blobs[f"blobs/{digest.replace(':', '/')}"] = content
        return digest

    config = keep(json.dumps({"rootfs": {"diff_ids": ["a", "b"]}, "config": {}}).encode())
    parts = [{"digest": keep(each)} for each in layers]
    manifest = keep(json.dumps({"config": {"digest": config}, "layers": parts}).encode())
    blobs["index.json"] = json.dumps({"manifests": [{"digest": manifest}]}).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in blobs.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return Archive(path)


def test_an_archive_shows_what_a_container_would_see(tmp_path: Path) -> None:
    below = layer(one="1", two="2", folder__three="3", other__four="4")
    above = layer(
        **{"one": "changed", ".wh.two": "", "folder__.wh..wh..opq": "", "folder__new": ""}
    )
    archive = make_archive(tmp_path / "x.tar", below, above)
    assert sorted(archive.files()) == ["folder/new", "one", "other/four"]
    assert sorted(archive.files(above=1)) == ["folder/new", "one"]
    assert archive.read("one") == b"changed"
    assert archive.contents(bytes.decode, above=1) == {"one": "changed", "folder/new": ""}
    (tmp_path / "out").mkdir()
    archive.unpack(tmp_path / "out")
    unpacked = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in unpacked) == [
        *("folder/new", "one", "other/four")
    ]


def test_layers_of_another_base_are_not_taken_for_it(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "x.tar", layer(one="1"), layer(two="2"))
    assert archive.layers_of(["a"]) == 1
    with pytest.raises(ArchiveError, match="isn't built on that base"):
        archive.layers_of(["b"])


def test_a_container_gets_nothing_that_its_image_does_not_ask_for(tmp_path: Path) -> None:
    config = {"config": {"User": "7:8", "Entrypoint": ["one"], "Cmd": ["two"], "Env": ["A=1"]}}
    told = specification(config, tmp_path)
    assert told["process"]["args"] == ["one", "two"]
    assert told["process"]["user"] == {"uid": 7, "gid": 8}
    assert told["root"]["readonly"]
    assert told["process"]["noNewPrivileges"]
    assert not any(told["process"]["capabilities"].values())
    assert specification(config, tmp_path, ["three"])["process"]["args"] == ["one", "three"]
