"""What can be said of the images without building them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import contexts
import images
import pytest
from toolchain import ROOT

DOCKERFILE = (ROOT / contexts.DOCKERFILE).read_text("utf-8")


def instructions(text: str = DOCKERFILE) -> Iterator[tuple[str, str]]:
    """Each instruction with its arguments, continued lines joined."""
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in bare.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, " ".join(rest.split())


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, by its name."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            name = rest.rpartition(" AS ")[2]
        found.setdefault(name, []).append((word, rest))
    return found


def ancestry(stage: str) -> list[str]:
    """The stage, what it stands on, and so on down to the base."""
    below = stages()[stage][0][1].partition(" AS ")[0]
    return [stage, *(ancestry(below) if below in stages() else [])]


def told(word: str) -> list[str]:
    return [rest for each, rest in instructions() if each == word]


def test_programs_are_started_without_a_shell() -> None:
    """A shell in between would keep SIGTERM from them."""
    started = [*told("ENTRYPOINT"), *told("CMD")]
    assert len(started) == 8
    assert all(isinstance(json.loads(each), list) for each in started)


def test_nothing_is_fetched_by_the_dockerfile_itself() -> None:
    assert told("ADD") == []
    assert re.findall(r"https?://|curl|wget|apt", DOCKERFILE) == []


def test_the_base_is_pinned() -> None:
    assert re.fullmatch(r"docker\.io/library/python:3\.13-slim(@sha256:\w{64})?", images.BASE)
    assert f"BASE={images.BASE}" in told("ARG")
    bases = {rest.partition(" AS ")[0] for rest in told("FROM")}
    assert bases <= {"${BASE}", "${SERVICE}", *stages()}


@pytest.mark.parametrize("service", images.SERVICES)
def test_what_is_shipped_has_a_numbered_user(service: str) -> None:
    users = [
        rest for stage in ancestry(service) for word, rest in stages()[stage] if word == "USER"
    ]
    assert users == ["10001:10001"]


@pytest.mark.parametrize("service", images.SERVICES)
def test_what_is_shipped_stands_on_nothing_that_builds(service: str) -> None:
    assert ancestry(service) == [service, "runtime", "foundation"]


def test_what_others_published_is_checked_against_hashes() -> None:
    installing = [rest for rest in told("RUN") if re.search(r"pip (install|sync)", rest)]
    fetching = [rest for rest in installing if "--offline" not in rest]
    assert len(fetching) == 3
    assert all("--require-hashes" in rest for rest in fetching)
    assert all("--mount=type=secret,id=packages" in rest for rest in fetching)


def test_layers_that_all_images_share_know_no_service() -> None:
    shared = [rest for name in ("tools", "wheels", "foundation") for _, rest in stages()[name]]
    assert [rest for rest in shared if "SERVICE" in rest] == []


def test_no_layer_holds_what_pip_is_told() -> None:
    settings = {rest.partition("=")[0] for rest in [*told("ARG"), *told("ENV")]}
    assert [name for name in settings if re.search("INDEX|PROXY|CERT|URL|TOKEN", name)] == []


@pytest.mark.parametrize(
    "path",
    [
        *(".git/HEAD", ".venv/bin/python", ".uv/uv", ".env", ".jangada/demo.json", "README.md"),
        *(
            "tests/test_up.py",
            "packages/jangada/tests/test_db.py",
            "services/api/tests/conftest.py",
        ),
        *(
            "locks/dev.txt",
            "docs/openapi.json",
            "bench/run.py",
            "scripts/images.py",
            "compose.yaml",
        ),
        *("packages/jangada/src/jangada/__pycache__/db.cpython-313.pyc", "services/Dockerfile"),
        *(
            "packages/jangada/src/jangada/testing.py",
            "packages/jangada/.mypy_cache/x",
            "dist/a.whl",
        ),
    ],
)
def test_what_images_are_not_made_from_stays_out(path: str) -> None:
    assert not contexts.is_let_in(path, contexts.patterns())


@pytest.mark.parametrize(
    "path",
    [
        *("pyproject.toml", "locks/api.txt", "locks/uv.txt", "tools/images/told.sh"),
        *("packages/jangada/pyproject.toml", "packages/jangada/src/jangada/db.py"),
        *("services/api/README.md", "services/api/src/jangada_api/static/docs.js"),
        "packages/jangada/src/jangada/accounts/common_passwords.txt",
    ],
)
def test_what_images_are_made_from_goes_in(path: str) -> None:
    assert contexts.is_let_in(path, contexts.patterns())


def test_all_that_goes_in_is_copied() -> None:
    """And so nothing else makes a layer anew."""
    plain = [rest.split()[:-1] for rest in told("COPY") if not rest.startswith("--from")]
    copied = [re.sub(r"\$\{SERVICE\}", "*", source) for each in plain for source in each]
    known = [Path(name) for name in contexts.files()]
    assert [
        str(name)
        for name in known
        if not any(place.match(source) for source in copied for place in (name, *name.parents))
    ] == []
    assert all((ROOT / name).is_file() for name in known)


def test_every_package_file_of_ours_goes_in() -> None:
    """But for what tests use: a new kind of file isn't forgotten."""
    known = set(contexts.files())
    ours = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob("*/*/src/**/*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "testing.py"
    ]
    assert len(ours) > 200
    assert set(ours) <= known
