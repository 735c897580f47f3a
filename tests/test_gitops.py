"""What Argo CD and Flux rely on: the chart renders the same everywhere, and nothing else is run."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import chart
import pytest
import tools
import yaml
from chart import CHART, VALUES, parsed, template, values
from toolchain import ROOT

GUIDE = ROOT / "docs/guides/gitops.md"
IMPURE = re.compile(
    r"\b(lookup|getHostByName|now|ago|date\w*|rand\w+|shuffle|uuidv4|bcrypt|htpasswd|gen[A-Z]\w+"
    r"|Release\.(Revision|IsInstall|IsUpgrade)|Capabilities)\b"
)
"""What differs from one time, place or cluster to another."""
ACTION = re.compile(r"\{\{(?!-?\s*/\*)(.*?)\}\}", re.DOTALL)
STRING = re.compile(r'"[^"]*"')
HOOK = "helm.sh/hook"


def helm() -> Path:
    if (found := tools.find(tools.CHART)) is None:
        pytest.skip("helm isn't built: `make tools ARGS=chart` does it")
    return found / "helm"


def impurities(text: str) -> Iterator[str]:
    for action in ACTION.findall(text):
        yield from (each[0] for each in IMPURE.finditer(STRING.sub("", action)))


@pytest.mark.parametrize("text", ['{{ lookup "v1" "Secret" "a" "b" }}', "{{ randAlphaNum 8 }}"])
def test_an_impure_template_would_be_found(text: str) -> None:
    assert list(impurities(text))


def test_no_template_asks_the_cluster_the_clock_or_chance() -> None:
    """But for the notes, which a person reads after helm has done it."""
    templates = [each for each in CHART.glob("templates/**/*") if each.suffix in {".yaml", ".tpl"}]
    assert len(templates) > 30
    found = {each.name: list(impurities(each.read_text("utf-8"))) for each in templates}
    assert {name: each for name, each in found.items() if each} == {}


@pytest.mark.parametrize("name", VALUES)
def test_an_upgrade_renders_what_an_install_did_and_the_definitions(name: str) -> None:
    """In another process, at another time, as Argo CD calls helm."""
    given = ["--values", str(values(name)), "--namespace", "team"]
    text = template(helm(), *given, "--include-crds", "--is-upgrade")
    (path,) = CHART.glob("crds/*.yaml")
    definitions = parsed(path.read_text("utf-8"))
    assert parsed(text) == [*definitions, *chart.objects(name, helm())]


@pytest.mark.parametrize("name", VALUES)
def test_no_hook_is_needed(name: str) -> None:
    annotations = [each["metadata"].get("annotations", {}) for each in chart.objects(name, helm())]
    assert {each[HOOK] for each in annotations if HOOK in each} <= {"test"}


def manifests() -> list[Mapping[str, Any]]:
    found = re.findall(r"^```yaml\n(.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [each for text in found for each in yaml.safe_load_all(text)]


def the(kind: str) -> Any:  # noqa: ANN401 - the spec of some kind
    (spec,) = (each["spec"] for each in manifests() if each["kind"] == kind)
    return spec


@pytest.mark.parametrize("kind", ["Application", "HelmRelease"])
def test_the_values_of_the_guide_are_taken(kind: str, tmp_path: Path) -> None:
    spec = the(kind)
    given = spec["source"]["helm"]["valuesObject"] if kind == "Application" else spec["values"]
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    made = parsed(template(helm(), "--values", str(tmp_path / "values.yaml")))
    assert {"Job", "WorkerPool"} <= {each["kind"] for each in made}


def test_the_paths_of_the_guide_are_there() -> None:
    applied = [each["spec"]["path"] for each in manifests() if each["kind"] == "Kustomization"]
    charts = [the("Application")["source"]["path"], the("HelmRelease")["chart"]["spec"]["chart"]]
    assert [each for each in applied if not (ROOT / each / "kustomization.yaml").is_file()] == []
    assert [each for each in charts if (ROOT / each).resolve() != CHART] == []
