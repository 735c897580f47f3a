"""What a release of the chart says of itself: to who mirrors it, upgrades it, or finds it."""

import re
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tools
import yaml
from chart import CHART, VALUES, rendered
from release_page import CHANGELOG, SECTION, STEPS, NotSaid, annotated, changes

CHART_YAML: Mapping[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
LISTED = (CHART / "images.txt").read_text("utf-8").split()
KINDS = {"added", "changed", "deprecated", "removed", "fixed", "security"}


def helm() -> Path:
    if (found := tools.find(tools.CHART)) is None:
        pytest.skip("helm isn't built: `make tools ARGS=chart` does it")
    return found / "helm"


def annotation(name: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = yaml.safe_load(
        CHART_YAML["annotations"][f"artifacthub.io/{name}"]
    )
    return found


def repository(image: str) -> str:
    """Without tag or digest."""
    return re.sub(r"(:[^/]+)?(@.*)?$", "", image)


@pytest.mark.parametrize("name", VALUES)
def test_no_image_is_missing_from_the_list(name: str) -> None:
    found = re.findall(r"^ *(?:- )?image: (\S+)$", rendered(name, helm()), re.MULTILINE)
    assert found
    assert {repository(each) for each in found} <= {repository(each) for each in LISTED}


def test_annotations_say_the_same_as_the_files_that_people_read() -> None:
    assert [each["image"] for each in annotation("images")] == LISTED
    assert {each["kind"] for each in annotation("changes")} <= KINDS
    assert {each["kind"] for each in annotation("crdsExamples")} == {"WorkerPool"}
    assert {each["url"].startswith("https://") for each in annotation("links")} == {True}


def test_the_changelog_begins_with_this_version_and_what_to_do_first() -> None:
    found = SECTION.search(CHANGELOG.read_text("utf-8"))
    assert found is not None
    assert found["version"] == CHART_YAML["version"]
    assert next(changes())[0] == STEPS


def test_values_that_the_changelog_names_are_there_unless_they_were_removed() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    for kind, said in changes():
        for name in re.findall(r"`([A-Za-z]+)[\w.\[\]]*`", said):
            assert (name in values) is (kind != "Removed"), said


def test_an_annotation_is_replaced_whole() -> None:
    text = "annotations:\n  a.b/c: |\n    - old\n    - older\n  d: e\n"
    assert annotated(text, "a.b/c", ["new"]) == "annotations:\n  a.b/c: |\n    - new\n  d: e\n"
    with pytest.raises(NotSaid):
        annotated(text, "a.b/other", [])


def test_a_package_has_no_snapshots_in_it(tmp_path: Path) -> None:
    subprocess.run(  # noqa: S603 - a pinned program
        [str(helm()), "package", str(CHART), "--destination", str(tmp_path)],
        check=True,
        capture_output=True,
    )
    (path,) = tmp_path.iterdir()
    with tarfile.open(path) as package:
        names = set(package.getnames())
    assert {"jangada/images.txt", "jangada/CHANGELOG.md", "jangada/values.schema.json"} <= names
    assert not any(name.startswith("jangada/tests/") for name in names)
    templates = (each for each in CHART.glob("templates/**/*") if each.is_file())
    assert {f"jangada/{each.relative_to(CHART)}" for each in templates} <= names
