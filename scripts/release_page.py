"""Writes what a release of the chart says of itself: its images, what has changed, examples.

`images.txt` is for who mirrors images. Artifact Hub and the like read the same, the newest section
of the chart's changelog and the examples of WorkerPools from annotations in `Chart.yaml`, whose
other lines are ours. Raises `NotSaid` where the changelog or `Chart.yaml` has no place for it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from chart import CHART, FAST, Object, objects
from toolchain import ROOT

CHANGELOG: Final = CHART / "CHANGELOG.md"
EXAMPLES: Final = ROOT / "k8s/examples"
SECTION: Final = re.compile(r"^## \[(?P<version>[^\]]+)\].*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
KIND: Final = re.compile(r"^### (?P<kind>.+)\n(?P<text>(?:(?!^##).*\n?)*)", re.MULTILINE)
ENTRY: Final = re.compile(r"^- (?P<text>.*(?:\n  .*)*)", re.MULTILINE)
STEPS: Final = "Upgrade steps"


class NotSaid(Exception):
    """Something about the release has no place, or isn't there."""


def images(helm: Path) -> str:
    """All images of a release with the servers of `dev`, a line for each."""
    return "".join(f"{each}\n" for each in sorted(set(_images(objects("dev", helm)))))


def _images(found: Any) -> Iterator[str]:  # noqa: ANN401 - any part of an object
    if isinstance(found, dict):
        for key, value in found.items():
            if key == "image" and isinstance(value, str):
                yield value
            yield from _images(value)
    elif isinstance(found, list | tuple):
        for each in found:
            yield from _images(each)


def changes() -> Iterator[tuple[str, str]]:
    """The entries of the newest section, each with its kind, such as `Added`."""
    if (section := SECTION.search(CHANGELOG.read_text("utf-8"))) is None:
        raise NotSaid("charts/jangada/CHANGELOG.md has no section of a version")
    for found in KIND.finditer(section[0]):
        for entry in ENTRY.finditer(found["text"]):
            yield found["kind"], " ".join(entry["text"].split())


def examples() -> Iterator[Object]:
    for path in sorted(EXAMPLES.glob("*.yaml")):
        found = yaml.load_all(path.read_text("utf-8"), FAST)
        yield from (each for each in found if each["kind"] == "WorkerPool")


def chart(helm: Path) -> str:
    """`Chart.yaml` with its generated annotations."""
    text = (CHART / "Chart.yaml").read_text("utf-8")
    listed = [
        {"name": each.rpartition("/")[2].partition(":")[0], "image": each}
        for each in images(helm).split()
    ]
    changed = [
        {"kind": kind.lower(), "description": said} for kind, said in changes() if kind != STEPS
    ]
    text = annotated(text, "artifacthub.io/images", listed)
    text = annotated(text, "artifacthub.io/changes", changed)
    return annotated(text, "artifacthub.io/crdsExamples", list(examples()))


def annotated(text: str, name: str, value: list[Any]) -> str:
    """The same with another value of an annotation, which is YAML in a string."""
    block = re.compile(rf"^  {re.escape(name)}: \|\n(?:    .*\n)*", re.MULTILINE)
    dumped: str = yaml.safe_dump(value, sort_keys=False, width=1000, allow_unicode=True)
    lines = "".join(f"    {line}\n" for line in dumped.splitlines())
    made, count = block.subn(lambda _: f"  {name}: |\n{lines}", text)
    if count != 1:
        raise NotSaid(f"charts/jangada/Chart.yaml has no place for {name}, or more than one")
    return made
