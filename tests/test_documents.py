"""The commands that the documents show are run as they stand, against a platform that is up.

Blocks of `sh` form one session for each document, in order; those that begin with `make` are only
looked up in the Makefile, since they are what runs this test. Blocks of `python` run by themselves;
those of `docs/writing-jobs.md` make up the files that they name, with tests that must pass.
What needs more than a platform has a test of its own: `docs/guides/backup.md`.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toolchain import ROOT

JANGADA = Path(sys.executable).parent / "jangada"
GUIDES = [path.name for path in (ROOT / "docs/guides").glob("*.md")]
BLOCK = re.compile(r"^```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT = 90
RUN = ["README.md", *sorted(f"docs/guides/{name}" for name in GUIDES if name != "backup.md")]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text("utf-8")
    return [found["text"] for found in BLOCK.finditer(text) if found["language"] == language]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that looks like the checkout, where what the commands write does no harm."""
    for name in ("docs", ".venv", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def ready(events: Iterator[dict[str, str]]) -> dict[str, str]:
    said = []
    for event in events:
        said.append(event)
        if event["event"] == "ready":
            return event
    pytest.fail(f"the platform did not start: {said}")


@pytest.fixture
def api(place: Path) -> Iterator[str]:
    """The address of a platform that `jangada up` runs."""
    folder = ["--data-dir", str(place / "data")]
    running = subprocess.Popen(  # noqa: S603 - our own program
        [JANGADA, "up", "--json", "--port", "0", *folder],
        cwd=place,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    try:
        yield ready(json.loads(line) for line in running.stdout)["api_url"]
    finally:
        running.terminate()
        running.communicate(timeout=TIMEOUT)


def run(script: str, place: Path, **environment: str) -> str:
    """What the commands print. They fail at the first one that fails, and say which."""
    done = subprocess.run(  # noqa: S603 - the documents are ours
        ["bash", "-euo", "pipefail", "-x", "-c", script],  # noqa: S607 - whichever bash is there
        cwd=place,
        env={**os.environ, "HOME": str(place), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def commands(document: str) -> str:
    return "\n".join(text for text in blocks(document, "sh") if not text.startswith("make "))


@pytest.mark.e2e
def test_the_documents_do_what_they_say(place: Path, api: str) -> None:
    """The README's session imports contacts; the guides' sessions are other people's."""
    assert commands("README.md")
    said = {document: run(commands(document), place, API=api) for document in RUN}
    assert '"state":"completed"' in said["README.md"].replace(" ", "")


def test_the_make_targets_that_documents_name_exist() -> None:
    targets = set(
        re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    )
    named = {
        target
        for document in [*RUN, "CONTRIBUTING.md"]
        for text in blocks(document, "sh")
        for target in re.findall(r"^make ([a-z0-9-]+)", text, re.MULTILINE)
    }
    assert named
    assert named <= targets


def test_the_python_of_the_readme_runs(place: Path) -> None:
    examples = blocks("README.md", "python")
    assert examples
    for example in examples:
        done = subprocess.run(  # noqa: S603 - the documents are ours
            [sys.executable, "-W", "error", "-c", example], cwd=place, check=False
        )
        assert done.returncode == 0


def test_the_jobs_of_the_guide_pass_their_tests(tmp_path: Path) -> None:
    examples = blocks("docs/writing-jobs.md", "python")
    for example in examples:
        title = re.match(r"# (\w+\.py)\n", example)
        assert title is not None, example
        with (tmp_path / title[1]).open("a", encoding="utf-8") as file:
            file.write(f"{example}\n\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


LINK = re.compile(r"\]\((?!https?://|#|mailto:)(?P<path>[^)#\s]+)")


def test_no_document_links_to_nowhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    dead = [
        f"{document.relative_to(ROOT)}: {found['path']}"
        for document in documents
        for found in LINK.finditer(document.read_text("utf-8"))
        if not (document.parent / found["path"]).exists()
    ]
    assert dead == []
